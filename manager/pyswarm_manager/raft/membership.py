"""Members come and go, one change at a time: a learner first, a voter once it has caught up.

Decides whether a member may go by itself (not where those that are up would be no majority of those that remain), and
when a learner has caught up. What a change does to the log and the votes, the core decides.
"""

from __future__ import annotations

import asyncio
import contextlib

from pyswarm_common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from pyswarm_manager.raft.core.types import ConfChange, ConfOperation, MemberRole, ProposalRefused
from pyswarm_manager.raft.leading import Leading

CAUGHT_UP_ENTRIES = 64
"""A learner that lacks fewer entries than this becomes a voter: it can then vote and commit without delay."""
CHANGE_TIMEOUT_S = 10.0
_RETRY_S = 0.05


class Membership(Leading):
    """The part of `RaftNode` that changes who is a member."""

    async def add_member(self, raft_id: int, address: str) -> None:
        """Let a manager join, as a learner first: it becomes a voter by itself once it has caught up, so that one which
        never starts costs the cluster nothing."""
        if not 0 < raft_id < 2**63:
            raise InvalidArgument("the raft id must be a positive number of at most 63 bits")
        if self.is_removed(raft_id):
            raise FailedPrecondition("this manager was removed from the cluster: join with a fresh state directory")
        await self._change(ConfChange(ConfOperation.ADD_LEARNER, raft_id, address))

    async def update_address(self, raft_id: int, address: str) -> None:
        """A member is reached elsewhere from now on."""
        self._require_member(raft_id)
        await self._change(ConfChange(ConfOperation.UPDATE_ADDRESS, raft_id, address))

    async def remove_member(self, raft_id: int, force: bool = False) -> None:
        """Remove a member for good. Refused where those that are up would not be a majority of those that remain."""
        self._require_member(raft_id)
        if not force:
            await self.hear_members()
            self._require_member(raft_id)
            self._require_quorum_without(raft_id)
        await self._change(ConfChange(ConfOperation.REMOVE, raft_id))

    async def hear_members(self) -> None:
        """Return when every active member has been heard since the call: then whoever is active really lives. A moment;
        if somebody has just fallen silent, until it counts as such."""
        loop = self._loop
        state = loop.core.state
        since, patience = state.now, state.options.election_ticks
        while self.is_leader and not loop.stopping:
            heard = [progress.last_heard for progress in state.progress.values()]
            if not any(state.now - patience < tick <= since for tick in heard):
                return
            await asyncio.sleep(loop.config.tick_s)

    async def wait_removed(self) -> None:
        """Return when this member learns that it was removed."""
        await self._loop.addresses.removed.wait()

    def _require_member(self, raft_id: int) -> None:
        self._require_leader()
        if raft_id not in self._loop.core.state.committed_configuration.members:
            raise NotFound("no such manager in the cluster: see `pyswarm node ls`")

    def _require_quorum_without(self, raft_id: int) -> None:
        rest = [m for i, m in self.members.items() if i != raft_id and m.role is MemberRole.VOTER]
        if not rest:
            raise FailedPrecondition("this is the last manager: removing it would lose the cluster")
        if sum(m.is_active for m in rest) < len(rest) // 2 + 1:
            raise FailedPrecondition(
                "removing this manager would leave the cluster without a majority of managers that are up: "
                "start the others again, or use --force"
            )

    async def _change(self, change: ConfChange) -> None:
        """Commit one membership change; waits its turn, since they happen one at a time."""
        try:
            async with asyncio.timeout(CHANGE_TIMEOUT_S):
                while True:
                    self._require_leader()
                    try:
                        future = self._loop.propose_change(change)
                    except ProposalRefused:
                        await asyncio.sleep(_RETRY_S)
                    else:
                        await future
                        return
        except TimeoutError:
            raise Unavailable("no majority of the managers answers: the membership change may still be made") from None

    def _promote_learner(self) -> None:
        """On each tick of a leader: a learner that has caught up becomes a voter."""
        if not self.is_leader:
            return
        members = self.members
        enough = members[self.raft_id].match_index - CAUGHT_UP_ENTRIES if self.raft_id in members else 0
        for raft_id, member in members.items():
            if member.role is MemberRole.LEARNER and member.is_active and member.match_index > max(0, enough):
                # Refused while another change is under way; the next tick tries again.
                with contextlib.suppress(ProposalRefused):
                    future = self._loop.propose_change(ConfChange(ConfOperation.ADD_VOTER, raft_id, member.address))
                    future.add_done_callback(lambda done: done.exception())  # whether it was lost, the members show
                return
