"""How the methods of a service reach the state: reads are answered here, what changes something by the leader.

A request that another manager passed on is taken only from one that still is a manager, and never passed on again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from pyswarm_common.errors import Unavailable
from pyswarm_common.rpc import peer_of
from pyswarm_manager.api.caller import Context, caller_of, forwarded_by, require_manager
from pyswarm_manager.api.forward import NO_LEADER, LeaderForwarder, refuse_forwarded
from pyswarm_manager.api.reads import wait_fresh
from pyswarm_manager.ports import RaftPort
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import StorePort

R = TypeVar("R", bound=Message)


class Calls:
    """One per service and manager."""

    def __init__(self, service: str, store: StorePort, raft: RaftPort, forwarder: LeaderForwarder) -> None:
        """`service`: its name in the .proto files, as "Control"."""
        self._prefix = f"/pyswarm.v1.{service}/"
        self._store, self._raft, self._forwarder = store, raft, forwarder

    async def view(self, context: Context, consistency: int) -> Tables:
        """The state, once it is as fresh as wanted. Not to be kept across an await."""
        await wait_fresh(self._raft, consistency)
        require_manager(caller_of(context), self._store.view.nodes)
        return self._store.view

    async def on_leader(
        self,
        context: Context,
        method: str,
        request: Message,
        response_type: type[R],
        local: Callable[[], Awaitable[R]],
        *,
        is_read: bool = False,
    ) -> R:
        """The answer of `local` where this manager leads, else the leader's."""
        is_forwarded = bool(forwarded_by(context))
        if is_forwarded and not self._raft.is_leader:
            await refuse_forwarded(context)

        async def as_leader() -> R:
            require_manager(peer_of(context), self._store.view.nodes)
            if is_forwarded and not self._raft.is_leader:
                raise Unavailable(NO_LEADER)
            return await local()

        return await self._forwarder.on_leader(
            self._prefix + method, request, response_type, caller_of(context), as_leader, is_read=is_read
        )
