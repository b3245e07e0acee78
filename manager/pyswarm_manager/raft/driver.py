"""A member of the managers' consensus group, as the rest of the manager sees it: `RaftNode`.

Propose a change and get its result once it is applied; read linearizably; follow leadership; add and remove members.
Whoever leads also promotes learners that have caught up. What is refused says whom to ask instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Self, TypeVar

from pyswarm_common.errors import Exhausted, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from pyswarm_manager.raft.core.messages import Message
from pyswarm_manager.raft.core.state import RandomBelow
from pyswarm_manager.raft.core.types import ConfChange, ConfOperation, MemberRole, ProposalRefused, Role
from pyswarm_manager.raft.inspection import RaftReport, report
from pyswarm_manager.raft.loop import STOPPED, RaftLoop, load_or_initialise
from pyswarm_manager.raft.ports import (
    ApplyResult,
    LeadershipChanged,
    MemberStatus,
    RaftConfig,
    StateMachine,
    Transport,
)
from pyswarm_manager.raft.storage.port import RaftStorage

__all__ = [
    "ApplyResult",
    "LeadershipChanged",
    "MemberStatus",
    "RaftConfig",
    "RaftNode",
    "RaftStorage",
    "StateMachine",
    "Transport",
]

CAUGHT_UP_ENTRIES = 64
"""A learner that lacks fewer entries than this becomes a voter: it can then vote and commit without delay."""
CHANGE_TIMEOUT_S = 10.0
TRANSFER_TIMEOUT_S = 2.0
_RETRY_S = 0.05
_READ_RETRY_S = 0.3

T = TypeVar("T")


class RaftNode:
    """One member. `open` it, keep `run` running in a task group, `close` it."""

    def __init__(
        self, loop: RaftLoop, storage: RaftStorage, transport: Transport, writer: Executor, encoder: Executor
    ) -> None:
        self._loop = loop
        self._storage, self._transport, self._writer, self._encoder = storage, transport, writer, encoder
        self._stopped = asyncio.Event()
        self._is_running = False
        self._full_disks = ""
        loop.on_tick = self._on_tick

    @classmethod
    async def open(
        cls,
        config: RaftConfig,
        storage: RaftStorage,
        transport: Transport,
        state_machine: StateMachine,
        bootstrap: Mapping[int, str] | None,
        *,
        writer: Executor | None = None,
        random_below: RandomBelow | None = None,
        clock_us: Callable[[], int] | None = None,
    ) -> Self:
        """Load, or begin. `bootstrap` names the first members of a new cluster; None to join one, or to restart.

        The simulator brings its own disk thread (one, in order), randomness and clock.
        """
        encoder = writer or ThreadPoolExecutor(1, thread_name_prefix="raft-snapshot")
        writer = writer or ThreadPoolExecutor(1, thread_name_prefix="raft-disk")
        try:
            running = asyncio.get_running_loop()
            stored = await running.run_in_executor(writer, load_or_initialise, config, storage, bootstrap)
            loop = RaftLoop(
                config,
                stored,
                storage,
                transport,
                state_machine,
                writer=writer,
                encoder=encoder,
                random_below=random_below,
                clock_us=clock_us,
            )
        except BaseException:
            writer.shutdown(wait=False)
            raise
        return cls(loop, storage, transport, writer, encoder)

    async def run(self) -> None:
        """Take part until `close`, or until something fails that this process must not survive (raises)."""
        assert not self._is_running, "a node runs once"
        self._is_running = True
        carrier = asyncio.ensure_future(self._transport.run())
        member = asyncio.ensure_future(self._loop.run())
        try:
            await asyncio.wait([carrier, member], return_when=asyncio.FIRST_COMPLETED)
            if carrier.done():
                carrier.result()
            if member.done():
                member.result()
        finally:
            self._loop.stopping = True
            self._loop.wake()
            await asyncio.gather(member, return_exceptions=True)
            carrier.cancel()
            await asyncio.gather(carrier, return_exceptions=True)
            await self._let_go()

    async def close(self, transfer: bool = True) -> None:
        """Stop; a leader first hands over, so that the others need not find out by themselves."""
        if transfer and self.is_leader and not self._loop.stopping:
            # Nobody to hand over to, or not in time: the others will elect.
            with contextlib.suppress(FailedPrecondition, Unavailable):
                await self.transfer_leadership()
        self._loop.stopping = True
        self._loop.wake()
        if self._is_running:
            await self._stopped.wait()
        else:
            await self._let_go()  # opened and never run

    async def _let_go(self) -> None:
        """Close the disk in the thread that used it."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._storage.close)
        self._writer.shutdown(wait=False)
        self._encoder.shutdown(wait=False)
        self._stopped.set()

    # -- the disk --------------------------------------------------------------------------------------------------

    async def on_disk(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread that uses the disk, between the saves; it should take no longer than a save."""
        if self._loop.stopping:
            raise Unavailable(STOPPED)
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    @property
    def disk_problem(self) -> str:
        """What the disk keeps this member from, in a sentence; empty when all is well."""
        return self._loop.disk_problem

    @property
    def is_read_only(self) -> bool:
        """The disk is full: this member promises nothing until there is room. Reads go on."""
        return self._loop.is_read_only

    async def wait_writable(self) -> None:
        """Return when this member can write, or does not lead (any more)."""
        while self.is_read_only and self.is_leader and not self._loop.stopping:  # noqa: ASYNC110 - several conditions
            await asyncio.sleep(_READ_RETRY_S)

    def _on_tick(self) -> None:
        before, self._full_disks = self._full_disks, self._why_nothing_is_written()
        if self._full_disks and not before:
            in_flight = f"{self._full_disks}. The change was in flight: read again to see whether it was made"
            self._loop.proposals.fail_all(Unavailable(self._full_disks), self.commit_index, in_flight)
        if self.is_read_only:
            self._step_down()
        else:
            self._promote_learner()

    def _why_nothing_is_written(self) -> str:
        """Empty while a majority of voters can store what this leader proposes, or may be able to."""
        if self.is_read_only:
            return self._loop.disk_refusal()
        state = self._loop.core.state
        full = [voter for voter in state.voters if voter in state.progress and state.progress[voter].disk_is_full]
        if state.role is not Role.LEADER or len(state.voters) - len(full) >= state.quorum():
            return ""
        where = ", ".join(self.address_of(voter) or f"{voter:x}" for voter in full)
        return (
            f"the disks of most managers are full: free some space at {where}; nothing is lost, and writes go on then"
        )

    def _step_down(self) -> None:
        """Hand over to whoever can write. Refused while it is under way; the next tick tries again."""
        if self._loop.core.state.role is Role.LEADER:
            with contextlib.suppress(FailedPrecondition, ProposalRefused):
                self._loop.core.transfer(self._best_successor())

    # -- facts -----------------------------------------------------------------------------------------------------

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
        return None if self.leader_id is None else self._loop.address_of(self.leader_id)

    def address_of(self, raft_id: int) -> str | None:
        """Where a member is reached, which may be newer than the configuration; None for a stranger."""
        return self._loop.address_of(raft_id)

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
        return report(loop.core.state, loop.config.tick_s, loop.proposals.waiting, loop.disk_problem)

    def is_removed(self, raft_id: int) -> bool:
        """Whether this id was a member once, and its messages are refused for good."""
        return self._loop.is_removed(raft_id)

    # -- messages --------------------------------------------------------------------------------------------------

    async def receive(self, messages: Sequence[Message]) -> None:
        """Messages from other members, in any order; waits while too many are unread."""
        await self._loop.receive(messages)

    def take(self, messages: Sequence[Message]) -> None:
        """The same without waiting, for who asks `call_when_room` afterwards."""
        self._loop.take(messages)

    def call_when_room(self, callback: Callable[[], None]) -> bool:
        """Whether too many messages are unread; then it is called as soon as they are not."""
        return self._loop.inbox.call_when_room(callback)

    def learn_peer(self, raft_id: int, address: str) -> None:
        """A manager that speaks to us says where it is; the configuration may not name it yet, or an old address."""
        if address and not self.is_removed(raft_id):
            self._loop.learn_peer(raft_id, address)

    # -- writes and reads ------------------------------------------------------------------------------------------

    async def propose(self, data: bytes) -> ApplyResult:
        """Commit and apply. Unavailable: not made, ask the leader. Unknown: may or may not be made, read again."""
        loop = self._loop
        if loop.stopping:
            raise Unavailable(STOPPED)
        if loop.core.state.role is not Role.LEADER:
            raise loop.not_leading()
        if self._full_disks:
            raise Unavailable(self._full_disks)
        if len(data) > loop.config.max_entry_bytes:
            raise Exhausted(f"the change is {len(data)} bytes and at most {loop.config.max_entry_bytes} are allowed")
        if not loop.proposals.has_room(len(data)):
            raise Exhausted("too many changes wait for their commit: try again in a moment")
        future = loop.proposals.queue(data)
        loop.wake()
        return await future

    async def read_barrier(self) -> int:
        """Return once everything that was committed when this was called is applied here; that index."""
        loop = self._loop
        leased = loop.core.leased_index(loop.clock_us())
        if leased is not None and leased <= loop.applied_index and not loop.stopping:
            return leased
        context, future = loop.reads.add()
        try:
            async with asyncio.timeout(loop.config.read_timeout_s):
                while not future.done():
                    if loop.stopping:
                        raise Unavailable(STOPPED)
                    is_asked = loop.core.read_index(context)
                    loop.wake()
                    # Asked again now and then, since the question or its answer may be lost.
                    await asyncio.wait([future], timeout=_READ_RETRY_S if is_asked else _RETRY_S)
                index = future.result()
                if loop.applied_index < index:
                    await loop.waiters.wait(index)
                return index
        except TimeoutError:
            if self.is_read_only:
                raise Unavailable(loop.disk_refusal()) from None
            raise Unavailable("no majority of the managers answers: start (or unlock) those that are down") from None
        finally:
            loop.reads.forget(context)

    async def wait_applied(self, index: int) -> None:
        """Return once everything up to `index` is applied here."""
        if self.applied_index < index:
            if self._loop.stopping:
                raise Unavailable(STOPPED)
            await self._loop.waiters.wait(index)

    # -- leadership ------------------------------------------------------------------------------------------------

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

    # -- membership ------------------------------------------------------------------------------------------------

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
        await self._loop.removed.wait()

    def _require_member(self, raft_id: int) -> None:
        self._require_leader()
        if raft_id not in self._loop.core.state.committed_configuration.members:
            raise NotFound("no such manager in the cluster: see `pyswarm node ls`")

    def _require_leader(self) -> None:
        if self._loop.core.state.role is not Role.LEADER:
            raise self._loop.not_leading()

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
