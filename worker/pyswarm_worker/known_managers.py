"""Whom the agent dials: the managers of today, as they told; names; and at last one that was a manager once.

A node may be away while managers come and go until none of those it was told of is left. Machines that were managers
before, or at which it joined, may be managers again. They are tried only after a while without a session, and one per
round, since asking a machine that is gone takes as long as all the others together. Bounded: the newest are kept.
"""

from __future__ import annotations

import asyncio

from pyswarm.v1 import dispatcher_pb2 as pb

from .store import Operation, SavedState, put_former_managers, put_managers

MAX_SEEDS = 32
MAX_FORMER = 16
LAST_RESORT_S = 10.0


class KnownManagers:
    """One agent's. Needs a running loop, whose clock it uses."""

    def __init__(self, joined_at: tuple[str, ...], seeds: tuple[str, ...]) -> None:
        self.addresses = joined_at
        self._joined_at, self._own_seeds = joined_at, seeds
        self._seeds: tuple[str, ...] = ()
        self._former: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._without_since: float | None = self._loop.time()
        self._turn = 0

    def load(self, saved: SavedState) -> None:
        """What an earlier daemon was told."""
        self.addresses = saved.managers or self._joined_at
        self._seeds, self._former = saved.seeds, saved.former_managers

    def learn(self, told: pb.ManagerList) -> list[Operation]:
        """What is to be kept of it. A leader that has just begun may not know the seeds yet: those told once stay."""
        seeds = tuple(told.seeds[:MAX_SEEDS]) or self._seeds
        addresses = tuple(told.addresses)
        if not addresses or (addresses, seeds) == (self.addresses, self._seeds):
            return []
        before = dict.fromkeys((*self.addresses, *self._former))
        self._former = tuple(address for address in before if address not in addresses)[:MAX_FORMER]
        self.addresses, self._seeds = addresses, seeds
        return [put_managers(addresses, seeds), put_former_managers(self._former)]

    def session_started(self) -> None:
        self._without_since = None

    def session_broken(self) -> None:
        if self._without_since is None:
            self._without_since = self._loop.time()

    def candidates(self) -> tuple[str, ...]:
        """Whom to dial in this round, the likeliest first."""
        return (*self.addresses, *self._own_seeds, *self._seeds, *self._last_resort())

    def _last_resort(self) -> tuple[str, ...]:
        once = [a for a in dict.fromkeys((*self._former, *self._joined_at)) if a not in self.addresses]
        if not once or self._without_since is None or self._loop.time() - self._without_since < LAST_RESORT_S:
            return ()
        self._turn += 1
        return (once[self._turn % len(once)],)
