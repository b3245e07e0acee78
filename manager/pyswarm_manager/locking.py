"""What a manager and the daemon of its machine tell each other about locks, on the manager's own socket.

The daemon keeps the machine's lock and its node key, and learns here which unlock key the cluster has; it tells the
manager which master key to lock the keyring with. Decides nothing; no key is ever logged. Served to nobody else.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pyswarm.v1 import locking_pb2 as pb
from pyswarm.v1 import locking_pb2_grpc
from pyswarm_common.errors import Exhausted
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import Cluster
from pyswarm_manager.at_rest import AtRest, Disk
from pyswarm_manager.credentials import LiveIdentity
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.store import Store


class LockingServicer(locking_pb2_grpc.LockingServicer):
    """Serves Locking."""

    def __init__(self, store: Store, disk: Disk, at_rest: AtRest, identity: LiveIdentity) -> None:
        self._store, self._disk, self._at_rest, self._identity = store, disk, at_rest, identity

    async def FollowUnlockKey(
        self, request: pb.FollowUnlockKeyRequest, context: Any
    ) -> AsyncIterator[pb.UnlockKeyState]:
        changed = asyncio.Event()

        def notice(_: int, events: tuple[Event, ...]) -> None:
            if any(isinstance(event.object, Cluster) for event in events):
                changed.set()

        unsubscribe = self._store.subscribe(notice)
        told: bytes | None = None
        try:
            while True:
                changed.clear()
                cluster = self._store.view.cluster
                if cluster is not None and cluster.unlock_key != told:
                    told = cluster.unlock_key
                    yield pb.UnlockKeyState(unlock_key=told)
                await changed.wait()
        finally:
            unsubscribe()

    async def SealKeyring(self, request: pb.SealKeyringRequest, context: Any) -> pb.SealKeyringResponse:
        master = LockKey(request.master_key) if request.master_key else None
        try:
            await self._disk.on_disk(lambda: self._at_rest.relock(master))
        except OSError as error:  # the old keyring is whole, and locked as it was; the daemon asks again
            raise Exhausted(f"the manager's keyring cannot be written: {error.strerror}") from error
        self._identity.master = master
        return pb.SealKeyringResponse()
