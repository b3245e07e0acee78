"""What a member of the managers' group knows of itself and of the others, as callers read it. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping

from pyswarm_manager.raft.inspection import RaftReport, report
from pyswarm_manager.raft.loop import RaftLoop
from pyswarm_manager.raft.ports import LeadershipChanged, MemberStatus


class Facts:
    """The readable part of `RaftNode`."""

    def __init__(self, loop: RaftLoop) -> None:
        self._loop = loop

    @property
    def raft_id(self) -> int:
        return self._loop.config.raft_id

    @property
    def leadership(self) -> LeadershipChanged:
        """Who leads now."""
        return self._loop.leadership

    @property
    def is_leader(self) -> bool:
        """This member leads, and has applied everything committed before its term."""
        return self._loop.leadership.is_leader

    @property
    def leader_id(self) -> int | None:
        return self._loop.leadership.leader_id

    @property
    def leader_address(self) -> str | None:
        """Where the leader is; None if none is known."""
        return None if self.leader_id is None else self._loop.addresses.of(self.leader_id)

    def address_of(self, raft_id: int) -> str | None:
        """Where a member is reached, which may be newer than the configuration; None for a stranger."""
        return self._loop.addresses.of(raft_id)

    @property
    def heard_leader(self) -> int | None:
        """The leader that was heard within an election timeout, or this member, if it leads. That it is heard does not
        mean that this member has what the leader has: it may be waiting for a snapshot."""
        state = self._loop.core.state
        is_heard = self.is_leader or state.election_elapsed < state.options.election_ticks
        return self.leader_id if is_heard else None

    @property
    def term(self) -> int:
        return self._loop.core.state.term

    @property
    def applied_index(self) -> int:
        return self._loop.applied_index

    @property
    def commit_index(self) -> int:
        """What this member knows to be committed; it may not be applied yet."""
        return self._loop.core.state.log.committed

    @property
    def members(self) -> Mapping[int, MemberStatus]:
        """All members, as committed; activity and progress only as seen from the leader."""
        state = self._loop.core.state
        oldest = state.now - state.options.election_ticks
        statuses = {}
        for raft_id, member in sorted(state.committed_configuration.members.items()):
            leads = raft_id == state.leader_id
            progress = state.progress.get(raft_id)
            if raft_id == state.id:
                full = state.disk_is_full
                statuses[raft_id] = MemberStatus(member.address, member.role, leads, True, state.log.stable, full)
            elif progress is None:
                statuses[raft_id] = MemberStatus(member.address, member.role, leads)
            else:
                active = progress.last_heard > oldest
                full = progress.disk_is_full
                statuses[raft_id] = MemberStatus(member.address, member.role, leads, active, progress.match, full)
        return statuses

    @property
    def last_index(self) -> int:
        """Where this member's log ends."""
        return self._loop.core.state.log.last_index

    def inspect(self) -> RaftReport:
        """More than anybody needs to work with it."""
        loop = self._loop
        return report(loop.core.state, loop.config.tick_s, loop.proposals.waiting, loop.disk.problem)

    def is_removed(self, raft_id: int) -> bool:
        """Whether this id was a member once, and its messages are refused for good."""
        return self._loop.addresses.is_removed(raft_id)
