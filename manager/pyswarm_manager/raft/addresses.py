"""Where the members are reached: as the configuration says, or as they have said themselves since.

Decides which of the two holds, and to whom the transport speaks: to members and those about to become ones, also to
whoever is being removed until that is committed. Who was removed is never spoken to again.
"""

from __future__ import annotations

import asyncio

from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.ports import Transport

MAX_LEARNED_PEERS = 16


class Addresses:
    """Follows the configurations of one core's state."""

    def __init__(self, own_id: int, state: RaftState, transport: Transport) -> None:
        self._own_id, self._state, self._transport = own_id, state, transport
        self._configuration = state.configuration
        self._committed = state.committed_configuration
        self._removed: frozenset[int] = frozenset()
        self._learned: dict[int, str] = {}
        self.removed = asyncio.Event()
        """This member itself was removed."""
        self._tell_transport()

    def is_removed(self, raft_id: int) -> bool:
        """Whether this id was a member once."""
        return raft_id in self._removed

    def of(self, raft_id: int) -> str | None:
        """Where this member is reached, as far as is known here; None for a stranger."""
        configured = self._configuration.members.get(raft_id)
        return self._learned.get(raft_id, configured.address if configured is not None else None)

    def learn(self, raft_id: int, address: str) -> None:
        """Reach this manager there, until the configuration says something new. The oldest of many is forgotten."""
        if self.of(raft_id) == address:
            return
        self._learned[raft_id] = address
        if len(self._learned) > MAX_LEARNED_PEERS:
            del self._learned[next(iter(self._learned))]
        self._tell_transport()

    def notice(self) -> None:
        """Look whether the configuration has changed."""
        state, before, now = self._state, self._configuration, self._state.configuration
        if now is before and state.committed_configuration is self._committed:
            return
        for raft_id in list(self._learned):
            if before.members.get(raft_id) != now.members.get(raft_id) or raft_id in now.removed:
                del self._learned[raft_id]
        self._configuration, self._committed = now, state.committed_configuration
        self._tell_transport()

    def _tell_transport(self) -> None:
        """Whose removal is not committed yet is still spoken to, and may yet stay."""
        members = {**self._committed.members, **self._configuration.members}
        self._removed = frozenset(self._committed.removed)
        peers = {i: member.address for i, member in members.items() if i != self._own_id}
        self._transport.set_peers({**peers, **self._learned})
        if self._own_id in self._removed:
            self.removed.set()
