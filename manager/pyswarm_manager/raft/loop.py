"""The loop around the core: gives the pure core its clock, disk, network and state machine.

One task owns the core. It wakes for messages, proposals, ticks and finished writes, feeds the core, and does what its
`Ready` says. At most one save is under way, in a thread of its own; meanwhile the loop goes on, so proposals gather in
one batch (one fsync for all of them) and a leader's entries reach the followers in parallel with its own fsync. What is
committed is applied after what is to be sent and saved in the same turn has begun: others wait for that.

It never applies an entry twice or out of order, and never goes on after a failed write or a failed apply: `run` raises,
and the process ends. While the disk is full it is read-only: the one save waits for room, and with it every promise.
Membership and leadership as callers see them are in `driver`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from pyswarm_common.errors import Unavailable
from pyswarm_manager.raft.addresses import Addresses
from pyswarm_manager.raft.core.messages import Message, TimeoutNow
from pyswarm_manager.raft.core.raft import Persist, Raft, Ready
from pyswarm_manager.raft.core.state import RandomBelow
from pyswarm_manager.raft.core.types import (
    NOBODY,
    ConfChange,
    Entry,
    EntryKind,
    ProposalRefused,
    Role,
    Snapshot,
    SoftState,
)
from pyswarm_manager.raft.disk import Disk
from pyswarm_manager.raft.inbox import Inbox
from pyswarm_manager.raft.opening import clock_us as boot_clock_us
from pyswarm_manager.raft.opening import options_of
from pyswarm_manager.raft.ports import ApplyResult, LeadershipChanged, RaftConfig, StateMachine, Transport
from pyswarm_manager.raft.snapshots import Snapshots
from pyswarm_manager.raft.storage.port import RaftStorage, Stored
from pyswarm_manager.raft.waiting import AppliedWaiters, Proposals, Reads
from pyswarm_manager.raft.writes import RETRY_S

STOPPED = "this manager is stopping: ask another one"
MAX_LOST_PEERS = 64
_APPLY_LIMIT = 256
"""Entries applied before the loop looks at messages again."""


class RaftLoop:
    """The loop around one core. Callers use `RaftNode`."""

    def __init__(
        self,
        config: RaftConfig,
        stored: Stored,
        storage: RaftStorage,
        transport: Transport,
        machine: StateMachine,
        *,
        writer: Executor,
        encoder: Executor,
        random_below: RandomBelow | None = None,
        clock_us: Callable[[], int] | None = None,
    ) -> None:
        self.config = config
        self.clock_us = clock_us or boot_clock_us
        self.core = Raft(
            stored.raft_id,
            stored.hard_state,
            stored.snapshot,
            stored.entries,
            options=options_of(config),
            random_below=random_below or random.SystemRandom().randrange,
            now_us=self.clock_us(),
        )
        self._transport, self._machine = transport, machine
        self._event_loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.proposals = Proposals(config.max_pending_proposals, config.max_pending_bytes)
        self.reads = Reads(self.clock_us())
        self.waiters = AppliedWaiters()
        self.inbox = Inbox(config.raft_id, config.max_inbox_messages)
        self.disk = Disk(storage, writer, math.ceil(RETRY_S / config.tick_s), self._wake_from_thread)
        self._snapshots = Snapshots(self.core, machine, encoder)
        self.applied_index = stored.snapshot.index
        self._unapplied: list[Entry] = []
        self.leadership = LeadershipChanged(0, None, False)
        self.leadership_changed = asyncio.Event()  # set and replaced at each change
        self.on_tick: Callable[[], None] = lambda: None
        self._lost_peers: list[int] = []
        self._tick_is_due = False
        self._ticks = 0
        self.stopping = False
        if stored.snapshot.index:
            machine.restore(stored.snapshot.index, stored.snapshot.data)
        transport.bind(self._transport_lost, self._snapshot_failed)
        self.addresses = Addresses(config.raft_id, self.core.state, transport)

    # -- inputs ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def _wake_from_thread(self) -> None:
        """From the thread in which something was done."""
        self._event_loop.call_soon_threadsafe(self._wake.set)

    async def receive(self, messages: Sequence[Message]) -> None:
        """Messages from other members; waits while too many are unread, which holds back the sender's stream."""
        await self.inbox.wait_room()
        self.take(messages)

    def take(self, messages: Sequence[Message]) -> None:
        """The same without waiting, for who holds back the sender by `inbox.call_when_room`."""
        self.inbox.put(messages)
        self._wake.set()

    def _transport_lost(self, peer: int) -> None:
        if len(self._lost_peers) < MAX_LOST_PEERS:
            self._lost_peers.append(peer)
        self._wake.set()

    def _snapshot_failed(self, peer: int) -> None:
        self.core.snapshot_failed(peer)
        self._wake.set()

    def propose_change(self, change: ConfChange) -> asyncio.Future[ApplyResult]:
        """Append a membership change. Raises ProposalRefused."""
        index = self.core.propose_change(change)
        future: asyncio.Future[ApplyResult] = asyncio.get_running_loop().create_future()
        self.proposals.appended(index, self.core.state.term, 0, future)
        self._wake.set()
        return future

    # -- the loop --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stopping`, or until something fails."""
        self.core.campaign()
        self._wake.set()
        timer = self._event_loop.call_later(self.config.tick_s, self._tick)
        try:
            while not self.stopping:
                await self._wake.wait()
                self._wake.clear()
                if self._tick_is_due:
                    # Ticks that come late are not caught up with: a busy host waits longer before it campaigns.
                    timer = self._event_loop.call_later(self.config.tick_s, self._tick)
                self._turn()
                if self.disk.has_deferred or self._wake.is_set():
                    await asyncio.sleep(0)  # others run before the next turn, even when there is already more to do
                    self.disk.begin_deferred()
        finally:
            self.stopping = True  # also when something failed: nobody may wait for what will not come
            timer.cancel()
            await self.disk.finish()
            self._fail_waiting()

    def _tick(self) -> None:
        self._tick_is_due = True
        self._wake.set()

    def _turn(self) -> None:
        """Feed the core with what came in, and do what it says, until it says nothing that can be done at once."""
        self._notice_writes()
        self._apply_held()
        self.core.observe(self.clock_us())
        for peer in self._lost_peers:
            if not self.disk.is_read_only:
                self.core.transport_lost(peer)
        self._lost_peers.clear()
        self._read_inbox()
        if self._tick_is_due:
            # After the inbox: a leader that was heard while we were busy is not lost.
            self._tick_is_due = False
            self._ticks += 1
            if not self.disk.is_read_only or self.core.state.role is Role.LEADER:
                self.core.tick()  # who cannot write does not campaign
            self.on_tick()
        self._append_proposals()
        self.reads.sent()
        self._act(self.core.ready(_APPLY_LIMIT))

    def _read_inbox(self) -> None:
        for message in self.inbox.take():
            is_unwanted = self.disk.is_read_only and isinstance(message, TimeoutNow)
            if not self.addresses.is_removed(message.sender) and not is_unwanted:
                self.core.step(message)
        if self.inbox:
            self._wake.set()

    def _append_proposals(self) -> None:
        """Group commit: what comes while the disk is busy goes out as one message, behind one sync. Nothing is lost by
        that, since nothing is applied here before it is on this disk."""
        if self.disk.is_saving:
            return
        batch = self.proposals.take_queued()
        if not batch:
            return
        try:
            first = self.core.propose([data for data, _ in batch])
        except ProposalRefused as refusal:
            self.proposals.refuse(batch, self.not_leading(str(refusal)))
            return
        term = self.core.state.term
        for index, (data, future) in enumerate(batch, first):
            self.proposals.appended(index, term, len(data), future)

    def _act(self, ready: Ready) -> None:
        if ready.immediate:
            self._transport.send(ready.immediate)
        is_saving = ready.persist is not None and self._persist(ready.persist, is_awaited=bool(ready.immediate))
        if ready.committed:
            self._unapplied += ready.committed
            if is_saving:
                self._hold_applying()
            else:
                self._apply_held()
            if len(ready.committed) >= _APPLY_LIMIT:
                self._wake.set()  # there may be more
        for read in ready.read_states:
            self.reads.confirmed(read.context, read.index)
        if ready.soft_state is not None:
            self._role_changed(ready.soft_state)
        self.addresses.notice()
        self._notice_leadership()
        self._maybe_snapshot()

    # -- the disk --------------------------------------------------------------------------------------------------

    def _persist(self, persist: Persist, *, is_awaited: bool) -> bool:
        """Whether a save begins. It is deferred where messages of the same turn are on their way."""
        if not persist.must_sync:
            self._persisted(persist)
            self._wake.set()  # what that commits, or lets be written, is in the next turn's `Ready`
            return False
        if is_awaited:
            self.disk.defer(persist)
        else:
            self.disk.save(persist)
        return True

    def _notice_writes(self) -> None:
        """What is on disk by now; a failed write ends the process."""
        self.disk.notice_compaction(self._ticks, self.core.state.log.snapshot.index)
        persist = self.disk.saved(self._ticks)
        if persist is not None:
            self._persisted(persist)
        # Without room nothing is promised. What waits is answered by the driver, at its next tick.
        self.core.state.disk_is_full = self.disk.is_read_only

    def _persisted(self, persist: Persist) -> None:
        self.core.persisted(persist)
        if persist.messages:
            self._transport.send(persist.messages)
        if persist.snapshot is not None:
            self._restore(persist.snapshot)

    # -- the state machine -----------------------------------------------------------------------------------------

    def _hold_applying(self) -> None:
        """Until the next turn: to apply takes the interpreter, which the disk's thread needs to begin. A follower's
        next turn is when its save is done and acknowledged, or at the next tick or message; a leader's comes at once,
        since clients wait for it."""
        if self.core.state.role is Role.LEADER:
            self._wake.set()

    def _apply_held(self) -> None:
        if not self._unapplied:
            return
        entries, self._unapplied = self._unapplied, []
        machine = self._machine
        for entry in entries:
            result: object = None
            if entry.kind is EntryKind.NORMAL:
                result = machine.apply(entry.index, entry.term, entry.data)
            self.applied_index = entry.index
            self.proposals.applied(entry, result)
        self.waiters.applied(self.applied_index)
        self._snapshots.applied(entries)

    def _restore(self, snapshot: Snapshot) -> None:
        """Whoever waits for an entry that was committed before has its result first."""
        self._apply_held()
        self._machine.restore(snapshot.index, snapshot.data)
        self.applied_index = snapshot.index
        self._snapshots.restored()
        self.waiters.applied(self.applied_index)

    def _maybe_snapshot(self) -> None:
        """Shorten the log, once enough was applied. What is stored waits for what is being stored, as saves do."""
        if self.disk.is_compacting:
            return
        snapshot = self._snapshots.finished()
        if snapshot is not None:
            self.disk.compact(snapshot, self.core.compact(snapshot, self.config.keep_entries))
            return
        self._snapshots.begin(self.config, self.applied_index, self._wake_from_thread)

    # -- leadership --------------------------------------------------------------------------------------------------

    def not_leading(self, reason: str = "this manager does not lead") -> Unavailable:
        """The refusal that names the leader."""
        state = self.core.state
        leader = state.committed_configuration.members.get(state.leader_id)
        if leader is None or state.leader_id == self.config.raft_id:
            return Unavailable(f"{reason}, and no leader is known: try again in a moment")
        return Unavailable(f"{reason}: ask the leader at {leader.address}")

    def _role_changed(self, soft: SoftState) -> None:
        if soft.role is not Role.LEADER:
            self.proposals.fail_all(self.not_leading(), self.core.state.log.committed)

    def _notice_leadership(self) -> None:
        state = self.core.state
        leads = state.role is Role.LEADER and self.applied_index >= state.term_start_index
        leader = state.leader_id if state.leader_id != NOBODY else None
        if state.role is Role.LEADER and not leads:
            leader = None  # not before everything of earlier terms is applied here
        now = LeadershipChanged(state.term, leader, leads)
        if now == self.leadership:
            return
        self.leadership = now
        self.leadership_changed.set()
        self.leadership_changed = asyncio.Event()

    def _fail_waiting(self) -> None:
        error = Unavailable(STOPPED)
        self.proposals.fail_all(error)
        self.reads.fail_all(error)
        self.waiters.fail_all(error)
        self.inbox.close()
        self.leadership = LeadershipChanged(self.core.state.term, None, False)
        self.leadership_changed.set()
