"""Follows the cluster's unlock key: what lies on this machine's disk is locked as the cluster wants it.

The manager on this machine says which key that is, at once and whenever it changes; all of it is done anew each time
the manager starts, so a crash in between is made up for. Locking goes lock, keyring, node key; opening goes the other
way; so while anything is locked the lock is there. A machine without a manager is not locked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import grpc

from pyswarm.v1 import locking_pb2, locking_pb2_grpc
from pyswarm_common.errors import PyswarmError
from pyswarm_common.identity.locks import LockKey

from .identity import CurrentIdentity
from .machine_lock import MachineLock

_log = logging.getLogger(__name__)

_RETRY_S = 1.0
_SEAL_TIMEOUT_S = 30.0
_MANAGER_ENDED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


class LockKeeper:
    """One per membership. `run` it while there is one."""

    def __init__(
        self,
        lock: MachineLock,
        identity: CurrentIdentity,
        channel: Callable[[], grpc.aio.Channel | None],
        changing: asyncio.Lock,
    ) -> None:
        """`channel` is None while no manager answers here; whoever changes the node's files holds `changing`."""
        self._lock, self._identity = lock, identity
        self._channel, self._changing = channel, changing
        self._told = ""

    async def run(self) -> None:
        """For ever."""
        while True:
            channel = self._channel()
            if channel is not None:
                try:
                    await self._follow(locking_pb2_grpc.LockingStub(channel))
                except (grpc.aio.AioRpcError, PyswarmError, OSError) as error:
                    self._tell(error)
            await asyncio.sleep(_RETRY_S)

    def _tell(self, error: Exception) -> None:
        """Once for each reason: it is tried again every second. That the manager ends, or has not started, is none."""
        reason = str(error)
        if isinstance(error, grpc.aio.AioRpcError):
            if error.code() in _MANAGER_ENDED:
                return
            reason = error.details() or "no answer"
        if reason != self._told:
            self._told = reason
            _log.warning("this machine's keys cannot be locked as the cluster wants now: %s", reason)

    async def _follow(self, stub: locking_pb2_grpc.LockingAsyncStub) -> None:
        async for state in stub.FollowUnlockKey(locking_pb2.FollowUnlockKeyRequest()):
            async with self._changing:
                if state.unlock_key:
                    await self._close(stub, LockKey(state.unlock_key))
                else:
                    await self._open(stub)
            self._told = ""

    async def _close(self, stub: locking_pb2_grpc.LockingAsyncStub, unlock_key: LockKey) -> None:
        was_closed = self._lock.master is not None
        self._lock.put_on(unlock_key)
        await self._seal(stub)
        self._identity.relock()
        if not was_closed:
            _log.info("autolock is on: the keys of this manager are locked, and it needs the unlock key to start again")

    async def _open(self, stub: locking_pb2_grpc.LockingAsyncStub) -> None:
        if self._lock.master is None:
            return
        self._identity.open_for_good()
        await self._seal(stub, opened=True)
        self._lock.take_off()
        _log.info("autolock is off: the keys of this manager are no longer locked")

    async def _seal(self, stub: locking_pb2_grpc.LockingAsyncStub, *, opened: bool = False) -> None:
        master = None if opened else self._lock.master
        request = locking_pb2.SealKeyringRequest(master_key=b"" if master is None else master.secret)
        await stub.SealKeyring(request, timeout=_SEAL_TIMEOUT_S)
