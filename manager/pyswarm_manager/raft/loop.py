"""The loop around the core: gives the pure core its clock, disk, network and state machine.

One task owns the core. It wakes for messages, proposals, ticks and finished writes, feeds the core, and does what its
`Ready` says. At most one save is under way, in a thread of its own; meanwhile the loop goes on, so proposals gather in
one batch (one fsync for all of them) and a leader's entries reach the followers in parallel with its own fsync.

It never applies an entry twice or out of order, and never goes on after a failed write or a failed apply: `run` raises,
and the process ends. While the disk is full it is read-only: the one save waits for room, and with it every promise.
Membership and leadership as callers see them are in `driver`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial

from pyswarm_common.errors import FailedPrecondition, Unavailable
from pyswarm_manager.raft.core.configuration import encode_change
from pyswarm_manager.raft.core.messages import Message, TimeoutNow
from pyswarm_manager.raft.core.raft import Persist, Raft, Ready
from pyswarm_manager.raft.core.state import RandomBelow
from pyswarm_manager.raft.core.types import (
    NOBODY,
    ConfChange,
    ConfOperation,
    Entry,
    EntryKind,
    HardState,
    LogLost,
    Options,
    ProposalRefused,
    Role,
    Snapshot,
    SoftState,
)
from pyswarm_manager.raft.inbox import Inbox
from pyswarm_manager.raft.ports import ApplyResult, LeadershipChanged, RaftConfig, StateMachine, Transport
from pyswarm_manager.raft.snapshots import Snapshots
from pyswarm_manager.raft.storage.port import RaftStorage, Stored
from pyswarm_manager.raft.waiting import AppliedWaiters, Proposals, Reads
from pyswarm_manager.raft.writes import RETRY_S, Write

_log = logging.getLogger(__name__)

STOPPED = "this manager is stopping: ask another one"
MAX_LEARNED_PEERS = 16
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
        self.clock_us = clock_us or _clock_us
        self.core = Raft(
            stored.raft_id,
            stored.hard_state,
            stored.snapshot,
            stored.entries,
            options=_options(config),
            random_below=random_below or random.SystemRandom().randrange,
            now_us=self.clock_us(),
        )
        self._storage, self._transport, self._machine, self._writer = storage, transport, machine, writer
        self.proposals = Proposals(config.max_pending_proposals, config.max_pending_bytes)
        self.reads = Reads()
        self.waiters = AppliedWaiters()
        self.applied_index = stored.snapshot.index
        self.leadership = LeadershipChanged(0, None, False)
        self.leadership_changed = asyncio.Event()  # set and replaced at each change
        self.removed = asyncio.Event()
        self.on_tick: Callable[[], None] = lambda: None
        self.inbox = Inbox(config.raft_id, config.max_inbox_messages)
        self._lost_peers: list[int] = []
        self._tick_is_due = False
        self._wake = asyncio.Event()
        self._event_loop = asyncio.get_running_loop()
        self._saving: tuple[Persist, Write] | None = None
        self._deferred: Persist | None = None
        self._compacting: tuple[int, Write] | None = None
        self._snapshots = Snapshots(self.core, machine, encoder)
        self._ticks = 0
        self.stopping = False
        if stored.snapshot.index:
            machine.restore(stored.snapshot.index, stored.snapshot.data)
        transport.bind(self._transport_lost, self._snapshot_failed)
        self._configuration = self.core.state.configuration
        self._committed = self.core.state.committed_configuration
        self._removed: frozenset[int] = frozenset()
        self._learned: dict[int, str] = {}
        self._tell_peers()

    # -- inputs ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    async def receive(self, messages: Sequence[Message]) -> None:
        """Messages from other members; waits while too many are unread, which holds back the sender's stream."""
        await self.inbox.wait_room()
        self.take(messages)

    def take(self, messages: Sequence[Message]) -> None:
        """The same without waiting, for who holds back the sender by `inbox.call_when_room`."""
        self.inbox.put(messages)
        self._wake.set()

    def is_removed(self, raft_id: int) -> bool:
        """Whether this id was a member once."""
        return raft_id in self._removed

    def _transport_lost(self, peer: int) -> None:
        if len(self._lost_peers) < 64:
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
        loop = asyncio.get_running_loop()
        self._wake.set()
        timer = loop.call_later(self.config.tick_s, self._tick)
        try:
            while not self.stopping:
                await self._wake.wait()
                self._wake.clear()
                if self._tick_is_due:
                    # Ticks that come late are not caught up with: a busy host waits longer before it campaigns.
                    timer = loop.call_later(self.config.tick_s, self._tick)
                self._turn()
                if self._deferred is not None or self._wake.is_set():
                    await asyncio.sleep(0)  # others run before the next turn, even when there is already more to do
                    self._persist_deferred()
        finally:
            self.stopping = True  # also when something failed: nobody may wait for what will not come
            timer.cancel()
            await self._finish_writes()
            self._fail_waiting()

    def _tick(self) -> None:
        self._tick_is_due = True
        self._wake.set()

    def _turn(self) -> None:
        """Feed the core with what came in, and do what it says, until it says nothing that can be done at once."""
        self._notice_writes()
        self.core.observe(self.clock_us())
        for peer in self._lost_peers:
            if not self.is_read_only:
                self.core.transport_lost(peer)
        self._lost_peers.clear()
        self._read_inbox()
        if self._tick_is_due:
            # After the inbox: a leader that was heard while we were busy is not lost.
            self._tick_is_due = False
            self._ticks += 1
            if not self.is_read_only or self.core.state.role is Role.LEADER:
                self.core.tick()  # who cannot write does not campaign
            self.on_tick()
        self._append_proposals()
        self._act(self.core.ready(_APPLY_LIMIT))

    def _read_inbox(self) -> None:
        for message in self.inbox.take():
            is_unwanted = self.is_read_only and isinstance(message, TimeoutNow)
            if message.sender not in self._removed and not is_unwanted:
                self.core.step(message)
        if self.inbox:
            self._wake.set()

    def _append_proposals(self) -> None:
        """Group commit: what comes while the disk is busy goes out as one message, behind one sync. Nothing is lost by
        that, since nothing is applied here before it is on this disk."""
        if self._saving is not None:
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
        if ready.immediate and ready.persist is not None and ready.persist.must_sync:
            self._deferred = ready.persist
        elif ready.persist is not None:
            self._persist(ready.persist)
        if ready.committed:
            self._apply(ready.committed)
            if len(ready.committed) >= _APPLY_LIMIT:
                self._wake.set()  # there may be more
        for read in ready.read_states:
            self.reads.confirmed(read.context, read.index)
        if ready.soft_state is not None:
            self._role_changed(ready.soft_state)
        self._notice_configuration()
        self._notice_leadership()
        self._maybe_snapshot()

    # -- the disk --------------------------------------------------------------------------------------------------

    def _persist_deferred(self) -> None:
        """The disk begins once the messages of the same turn are on their way: in Python the two would not run side by
        side but take turns, and the followers' syncs would begin later."""
        if self._deferred is not None:
            persist, self._deferred = self._deferred, None
            self._persist(persist)

    def _persist(self, persist: Persist) -> None:
        if not persist.must_sync:
            self._persisted(persist)
            self._wake.set()  # what that commits, or lets be written, is in the next turn's `Ready`
            return
        save = partial(self._storage.save, persist.hard_state, persist.entries, persist.snapshot)
        self._saving = (persist, self._write(save))

    def _write(self, work: Callable[[], None]) -> Write:
        return Write(partial(self._in_writer, work), math.ceil(RETRY_S / self.config.tick_s))

    def _in_writer(self, write: Callable[[], None]) -> Future[None]:
        """Run in the one thread that uses the disk, in the order of the calls. One hop there and one back."""
        future = self._writer.submit(write)
        future.add_done_callback(lambda _: self._wake_from_thread())
        return future

    def _notice_writes(self) -> None:
        """What is on disk by now; a failed write ends the process."""
        if self._compacting is not None:
            index, write = self._compacting
            # A leader's snapshot replaced the log meanwhile: the older one must not come after it.
            is_outdated = bool(write.problem) and self.core.state.log.snapshot.index != index
            if is_outdated or write.is_done(self._ticks):
                self._compacting = None
        if self._saving is not None:
            persist, write = self._saving
            was_read_only = self.is_read_only
            if write.is_done(self._ticks):
                self._saving = None
                self._persisted(persist)
            if was_read_only != self.is_read_only:
                self._room_changed()

    def _room_changed(self) -> None:
        """Without room nothing is promised. What waits is answered by the driver, at its next tick."""
        self.core.state.disk_is_full = self.is_read_only
        if not self.is_read_only:
            _log.warning("there is room on the disk again: this manager goes on")
            return
        _log.error("%s: this manager is read-only until there is room", self.disk_problem)

    @property
    def is_read_only(self) -> bool:
        """A write waits for room on the disk."""
        return self._saving is not None and bool(self._saving[1].problem)

    @property
    def disk_problem(self) -> str:
        """What the disk keeps this member from; empty when all is well."""
        waiting = [item[1].problem for item in (self._saving, self._compacting) if item is not None]
        return next((problem for problem in waiting if problem), "")

    def disk_refusal(self) -> str:
        """Why nothing can be written here."""
        return f"{self.disk_problem}: free some space there; nothing is lost, and it goes on by itself"

    def _persisted(self, persist: Persist) -> None:
        self.core.persisted(persist)
        if persist.messages:
            self._transport.send(persist.messages)
        if persist.snapshot is not None:
            self._restore(persist.snapshot)

    async def _finish_writes(self) -> None:
        """Nothing may use the disk after we stop."""
        under_way = [item[1].future for item in (self._compacting, self._saving) if item is not None]
        await asyncio.gather(*map(asyncio.wrap_future, under_way), return_exceptions=True)
        self._saving = self._compacting = None

    # -- the state machine -----------------------------------------------------------------------------------------

    def _apply(self, entries: Sequence[Entry]) -> None:
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
        self._machine.restore(snapshot.index, snapshot.data)
        self.applied_index = snapshot.index
        self._snapshots.restored()
        self.waiters.applied(self.applied_index)

    def _maybe_snapshot(self) -> None:
        """Shorten the log, once enough was applied. What is stored waits for what is being stored, as saves do."""
        if self._compacting is not None:
            return
        snapshot = self._snapshots.finished()
        if snapshot is not None:
            first_kept = self.core.compact(snapshot, self.config.keep_entries)
            save = partial(self._storage.save_snapshot, snapshot, first_kept)
            self._compacting = (snapshot.index, self._write(save))
            return
        self._snapshots.begin(self.config, self.applied_index, self._wake_from_thread)

    def _wake_from_thread(self) -> None:
        """From the thread in which something was done."""
        self._event_loop.call_soon_threadsafe(self._wake.set)

    # -- leadership and membership -----------------------------------------------------------------------------------

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

    def _notice_configuration(self) -> None:
        state, before, now = self.core.state, self._configuration, self.core.state.configuration
        if now is before and state.committed_configuration is self._committed:
            return
        for raft_id in list(self._learned):
            if before.members.get(raft_id) != now.members.get(raft_id) or raft_id in now.removed:
                del self._learned[raft_id]
        self._configuration, self._committed = now, state.committed_configuration
        self._tell_peers()

    def address_of(self, raft_id: int) -> str | None:
        """Where this member is reached, as far as is known here; None for a stranger."""
        configured = self._configuration.members.get(raft_id)
        return self._learned.get(raft_id, configured.address if configured is not None else None)

    def learn_peer(self, raft_id: int, address: str) -> None:
        """Reach this manager there, until the configuration says something new. The oldest of many is forgotten."""
        configured = self._configuration.members.get(raft_id)
        known = self._learned.get(raft_id, configured.address if configured is not None else None)
        if known == address:
            return
        self._learned[raft_id] = address
        if len(self._learned) > MAX_LEARNED_PEERS:
            del self._learned[next(iter(self._learned))]
        self._tell_peers()

    def _tell_peers(self) -> None:
        """Whose removal is not committed yet is still spoken to, and may yet stay."""
        own = self.config.raft_id
        members = {**self._committed.members, **self._configuration.members}
        self._removed = frozenset(self._committed.removed)
        peers = {i: member.address for i, member in members.items() if i != own}
        self._transport.set_peers({**peers, **self._learned})
        if own in self._removed:
            self.removed.set()

    def _fail_waiting(self) -> None:
        error = Unavailable(STOPPED)
        self.proposals.fail_all(error)
        self.reads.fail_all(error)
        self.waiters.fail_all(error)
        self.inbox.close()
        self.leadership = LeadershipChanged(self.core.state.term, None, False)
        self.leadership_changed.set()


def _clock_us() -> int:
    """Time that is never set, and that also passes while the machine sleeps or this process is stopped."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def _options(config: RaftConfig) -> Options:
    tick_us = int(config.tick_s * 1e6)
    return Options(
        heartbeat_ticks=config.heartbeat_ticks,
        election_ticks=config.election_ticks,
        max_append_bytes=config.max_append_bytes,
        max_inflight_messages=config.max_inflight_messages,
        lease_us=config.lease_ticks * tick_us,
        promise_us=config.promise_ticks * tick_us,
    )


def load_or_initialise(config: RaftConfig, storage: RaftStorage, bootstrap: Mapping[int, str] | None) -> Stored:
    """What the disk holds; on a fresh one, the first members as committed entries, alike on each of them."""
    stored = storage.load()
    if stored is not None:
        if stored.raft_id != config.raft_id:
            raise LogLost("the Raft log in this state directory was written under another raft id")
        if bootstrap is not None:
            raise FailedPrecondition("this state directory already belongs to a cluster: leave it first")
        return stored
    entries = tuple(
        Entry(index, 1, EntryKind.CONFIG, encode_change(ConfChange(ConfOperation.ADD_VOTER, raft_id, address)))
        for index, (raft_id, address) in enumerate(sorted((bootstrap or {}).items()), 1)
    )
    hard_state = HardState(1, NOBODY, len(entries)) if entries else HardState()
    storage.initialise(config.raft_id, hard_state, entries)
    return Stored(config.raft_id, hard_state, Snapshot(), entries)
