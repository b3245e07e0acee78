"""What the tables were at a few marked indexes, so that replicas can be compared while writes go on.

A `Checkpoint` in the log makes every member keep its objects of that moment: references only, in a few milliseconds,
since objects never change. The digest is made when somebody asks, in a thread; then the references go. A
member that took the index from a snapshot never was there, and says so.

Bounded: the objects of the last `KEPT_TABLES` checkpoints, and the digests of the last `KEPT_DIGESTS`.
"""

from __future__ import annotations

import asyncio
import time

from pyswarm_common.errors import FailedPrecondition
from pyswarm_manager.store.digest import Frozen, digest_of, freeze
from pyswarm_manager.store.tables import Tables

KEPT_TABLES = 2
KEPT_DIGESTS = 16
_REST_S = 0.0002


def let_others_run() -> None:
    """Give up the interpreter's lock: a thread that only computes lets others wait for 5 ms each time."""
    time.sleep(_REST_S)


class Checkpoints:
    """Belongs to one store."""

    def __init__(self) -> None:
        self._tables: dict[int, Frozen] = {}
        self._digests: dict[int, asyncio.Future[str]] = {}

    def take(self, tables: Tables) -> None:
        """Keep the objects as they are now. Called inside apply."""
        self._tables[tables.index] = freeze(tables)
        while len(self._tables) > KEPT_TABLES:
            del self._tables[next(iter(self._tables))]

    async def digest_at(self, index: int) -> str:
        """The digest of the checkpoint at `index`, which must have been applied. Refused if it was not passed here, or
        too long ago."""
        known = self._digests.get(index)
        if known is None:
            frozen = self._tables.pop(index, None)
            if frozen is None:
                raise FailedPrecondition(f"nothing is kept of index {index}: it came in a snapshot, or was long ago")
            known = self._digests[index] = asyncio.ensure_future(asyncio.to_thread(digest_of, frozen, let_others_run))
            while len(self._digests) > KEPT_DIGESTS:
                del self._digests[next(iter(self._digests))]
        return await asyncio.shield(known)
