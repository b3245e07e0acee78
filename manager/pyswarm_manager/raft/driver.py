"""A member of the managers' consensus group, as the rest of the manager sees it: `RaftNode`.

Propose a change and get its result once it is applied; read linearizably; follow leadership (`leading`); add and remove
members (`membership`). Whoever leads also promotes learners that have caught up. What is refused says whom to ask
instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Self, TypeVar

from pyswarm_common.errors import Exhausted, FailedPrecondition, Unavailable
from pyswarm_manager.raft.core.messages import Message
from pyswarm_manager.raft.core.state import RandomBelow
from pyswarm_manager.raft.core.types import ProposalRefused, Role
from pyswarm_manager.raft.loop import STOPPED, RaftLoop
from pyswarm_manager.raft.membership import Membership
from pyswarm_manager.raft.opening import load_or_initialise
from pyswarm_manager.raft.ports import (
    ApplyResult,
    LeadershipChanged,
    MemberStatus,
    RaftConfig,
    StateMachine,
    Transport,
)
from pyswarm_manager.raft.storage.port import RaftStorage
from pyswarm_manager.raft.waiting import Barrier

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

_RETRY_S = 0.05
_READ_RETRY_S = 0.3

T = TypeVar("T")


class RaftNode(Membership):
    """One member. `open` it, keep `run` running in a task group, `close` it."""

    def __init__(
        self, loop: RaftLoop, storage: RaftStorage, transport: Transport, writer: Executor, encoder: Executor
    ) -> None:
        super().__init__(loop)
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
        return self._loop.disk.problem

    @property
    def is_read_only(self) -> bool:
        """The disk is full: this member promises nothing until there is room. Reads go on."""
        return self._loop.disk.is_read_only

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
            return self._loop.disk.refusal()
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
            self._loop.addresses.learn(raft_id, address)

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
        barrier = loop.reads.join()
        try:
            async with asyncio.timeout(loop.config.read_timeout_s):
                index = await self._confirmed(barrier)
                if loop.applied_index < index:
                    await loop.waiters.wait(index)
                return index
        except TimeoutError:
            if self.is_read_only:
                raise Unavailable(loop.disk.refusal()) from None
            raise Unavailable("no majority of the managers answers: start (or unlock) those that are down") from None
        finally:
            loop.reads.leave(barrier)

    async def _confirmed(self, barrier: Barrier) -> int:
        """The index, once a leader tells it. Its first reader asks; each asks again now and then, since the question or
        its answer may be lost."""
        loop = self._loop
        is_first = barrier.readers == 1
        while not barrier.future.done():
            if loop.stopping:
                raise Unavailable(STOPPED)
            if is_first:
                barrier.is_asked = loop.core.read_index(barrier.context)
                loop.wake()
            await asyncio.wait([barrier.future], timeout=_READ_RETRY_S if barrier.is_asked else _RETRY_S)
            is_first = True
        return barrier.future.result()

    async def wait_applied(self, index: int) -> None:
        """Return once everything up to `index` is applied here."""
        if self.applied_index < index:
            if self._loop.stopping:
                raise Unavailable(STOPPED)
            await self._loop.waiters.wait(index)
