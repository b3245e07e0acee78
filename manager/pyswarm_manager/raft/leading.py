"""Following leadership, and handing it over.

Decides who succeeds: the voter that is up, has room on its disk, and has most of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from pyswarm_common.errors import FailedPrecondition, Unavailable
from pyswarm_manager.raft.core.types import MemberRole, ProposalRefused, Role
from pyswarm_manager.raft.facts import Facts
from pyswarm_manager.raft.loop import STOPPED
from pyswarm_manager.raft.ports import LeadershipChanged

TRANSFER_TIMEOUT_S = 2.0


class Leading(Facts):
    """The part of `RaftNode` that is about who leads."""

    async def wait_leadership_change(self, previous: LeadershipChanged) -> LeadershipChanged:
        """Return the leadership as soon as it differs from `previous` (at once, if it does)."""
        while self.leadership == previous:
            if self._loop.stopping:
                raise Unavailable(STOPPED)
            await self._loop.leadership_changed.wait()
        return self.leadership

    async def subscribe_leadership(self) -> AsyncIterator[LeadershipChanged]:
        """The leadership now, then at each change; changes while the reader is busy are seen as one. Ends at close."""
        seen = self.leadership
        yield seen
        while True:
            try:
                seen = await self.wait_leadership_change(seen)
            except Unavailable:
                return
            yield seen

    async def transfer_leadership(self, to: int | None = None) -> None:
        """Hand over to `to`, or to the voter that has most of the log; returns when another leads."""
        try:
            self._loop.core.transfer(to if to is not None else self._best_successor())
        except ProposalRefused as refusal:
            raise FailedPrecondition(str(refusal)) from None
        self._loop.wake()
        await self._wait(lambda: self.leader_id not in (None, self.raft_id), TRANSFER_TIMEOUT_S)

    def _best_successor(self) -> int:
        members = self.members.items()
        able = [
            (m.match_index, i) for i, m in members if m.is_active and m.role is MemberRole.VOTER and not m.disk_is_full
        ]
        others = [candidate for candidate in able if candidate[1] != self.raft_id]
        if not others:
            raise FailedPrecondition("no other manager that could lead is up")
        return max(others)[1]

    async def _wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self.wait_leadership_change(self.leadership)
        except TimeoutError:
            raise Unavailable("leadership did not move in time: try again") from None

    def _require_leader(self) -> None:
        if self._loop.core.state.role is not Role.LEADER:
            raise self._loop.not_leading()
