"""The consensus core: events in, one `Ready` out, as in etcd's raft.

Tell it the time with `observe`, feed it `tick`, `step`, `propose`… and then take `ready()`, which says what to send at
once, what to persist, what to send after persisting, and what to apply. While a persist is under way the shell may go
on feeding it and take further `Ready`s; those hold nothing to persist until `persisted` is called. It does no I/O,
reads no clock, and draws random numbers only from the function it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from pyswarm_manager.raft.core import election, follower, leader, lease
from pyswarm_manager.raft.core.configuration import encode_change
from pyswarm_manager.raft.core.log import KEEP_BYTES, RaftLog
from pyswarm_manager.raft.core.messages import (
    Append,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from pyswarm_manager.raft.core.progress import ProgressState
from pyswarm_manager.raft.core.state import RaftState, RandomBelow
from pyswarm_manager.raft.core.types import (
    NOBODY,
    ConfChange,
    Entry,
    EntryKind,
    HardState,
    Options,
    ReadState,
    Role,
    Snapshot,
    SoftState,
)

APPLY_BATCH = 1024
"""At most this many committed entries per `Ready`."""


class Ready(msgspec.Struct, frozen=True):
    """What the shell must do now, in this order; `persist` (if any) may run while it goes on."""

    immediate: tuple[Message, ...]
    persist: Persist | None
    committed: tuple[Entry, ...]
    read_states: tuple[ReadState, ...]
    soft_state: SoftState | None


class Persist(msgspec.Struct, frozen=True):
    """Write all of this in one transaction, sync, then send `messages`, then call `persisted` with it.

    Entries replace what is stored from the first one's index on; a snapshot replaces all of the log. Where `must_sync`
    is False there is nothing to write.
    """

    hard_state: HardState
    entries: tuple[Entry, ...]
    snapshot: Snapshot | None
    messages: tuple[Message, ...]
    must_sync: bool


class Raft:
    """One member of the group, as a state machine without I/O."""

    def __init__(
        self,
        raft_id: int,
        hard_state: HardState,
        snapshot: Snapshot,
        entries: Sequence[Entry],
        *,
        options: Options,
        random_below: RandomBelow,
        now_us: int,
    ) -> None:
        assert raft_id != NOBODY, "a raft id is never zero"
        self.state = RaftState(raft_id, RaftLog(snapshot, entries), hard_state, options, random_below, now_us)
        self._on_disk = hard_state
        self._snapshot: Snapshot | None = None
        self._is_persisting = False
        self._told = SoftState(0, Role.FOLLOWER, NOBODY)

    # -- events ----------------------------------------------------------------------------------------------------

    def observe(self, now_us: int) -> None:
        """What time it is, after everything that is fed next has arrived. By a clock that is never set and never stands
        still, not even while this process is frozen: leases rest on it."""
        self.state.now_us = max(self.state.now_us, now_us)

    def tick(self) -> None:
        """One tick of time has passed."""
        state = self.state
        state.now += 1
        if state.role is Role.LEADER:
            leader.tick(state)
        else:
            election.tick(state)

    def campaign(self) -> None:
        """Campaign now, if we are the sole voter: nobody else can lead, so there is nothing to wait for."""
        state = self.state
        if state.voters == state.committed_configuration.voters() == (state.id,) and state.role is not Role.LEADER:
            election.campaign(state, pre=True)

    def transport_lost(self, peer: int) -> None:
        """The connection to `peer` broke, and trying again was refused."""
        election.leader_lost(self.state, peer)

    def propose(self, datas: Sequence[bytes]) -> int:
        """Append proposals; the index of the first. Raises ProposalRefused."""
        return leader.propose(self.state, EntryKind.NORMAL, list(datas))

    def propose_change(self, change: ConfChange) -> int:
        """Append a membership change; its index. Raises ProposalRefused."""
        return leader.propose_change(self.state, encode_change(change))

    def transfer(self, peer: int) -> None:
        """Hand leadership to `peer`. Raises ProposalRefused."""
        leader.transfer(self.state, peer)

    def read_index(self, context: int) -> bool:
        """Ask for a linearizable read; a ReadState with `context` follows. False: no leader, or too many wait."""
        if self.state.role is Role.LEADER:
            return leader.read_index(self.state, context)
        return follower.forward_read(self.state, context)

    def leased_index(self, now_us: int) -> int | None:
        """What a linearizable read that arrived before `now_us` must see, if our lease tells it at once."""
        return self.state.log.committed if lease.holds(self.state, now_us) else None

    def snapshot_failed(self, peer: int) -> None:
        """The transport could not deliver a snapshot."""
        leader.snapshot_failed(self.state, peer)

    def is_sending_snapshot(self) -> bool:
        """Whether a follower is being given a snapshot: then the log after it had better stay. Not for one that does
        not answer, which may be for ever."""
        state = self.state
        return any(p.state is ProgressState.SNAPSHOT and leader.is_active(state, p) for p in state.progress.values())

    def compact(self, snapshot: Snapshot, keep: int) -> int:
        """A snapshot of what was applied is stored: shorten the log; the first index that is kept."""
        self.state.forget_configurations_before(snapshot.index)
        return self.state.log.compact(snapshot, keep, KEEP_BYTES)

    def step(self, message: Message) -> None:
        """A message arrived."""
        state = self.state
        if message.term > state.term:
            if not self._accept_newer_term(message):
                return
        elif message.term < state.term:
            self._answer_older_term(message)
            return
        self._dispatch(message)

    def _accept_newer_term(self, message: Message) -> bool:
        """Move to the message's term, unless it is only a candidacy that a working leader makes pointless."""
        state = self.state
        match message:
            case VoteRequest():
                if state.hears_leader() and not message.transfer:
                    return False
                if not message.pre:
                    state.become_follower(message.term, NOBODY)
            case VoteResponse(pre=True, granted=True):
                pass  # repeats the term we asked about; ours changes when we campaign
            case Append() | Heartbeat() | InstallSnapshot():
                state.become_follower(message.term, message.sender)
            case _:
                state.become_follower(message.term, NOBODY)
        return True

    def _answer_older_term(self, message: Message) -> None:
        match message:
            case Append() | Heartbeat() | InstallSnapshot():
                follower.refuse_old_leader(self.state, message.sender)
            case VoteRequest(pre=True):
                election.refuse_stale(self.state, message)
            case _:
                pass

    def _dispatch(self, message: Message) -> None:
        match message:
            case VoteRequest():
                election.answer_request(self.state, message)
            case VoteResponse():
                election.handle_response(self.state, message)
            case Append() | Heartbeat() | InstallSnapshot() | TimeoutNow():
                self._dispatch_from_leader(message)
            case ReadIndexResponse():
                follower.handle_read_response(self.state, message)
            case AppendResponse() | HeartbeatResponse() | ReadIndexRequest():
                if self.state.role is Role.LEADER:
                    self._dispatch_to_leader(message)
            case _:
                assert_never(message)

    def _dispatch_from_leader(self, message: Append | Heartbeat | InstallSnapshot | TimeoutNow) -> None:
        state = self.state
        follower.hear_leader(state, message.sender)
        match message:
            case Append():
                follower.handle_append(state, message)
            case Heartbeat():
                follower.handle_heartbeat(state, message)
            case InstallSnapshot():
                self._snapshot = follower.handle_snapshot(state, message) or self._snapshot
            case TimeoutNow():
                follower.campaign_by_transfer(state)

    def _dispatch_to_leader(self, message: AppendResponse | HeartbeatResponse | ReadIndexRequest) -> None:
        match message:
            case AppendResponse():
                leader.handle_append_response(self.state, message)
            case HeartbeatResponse():
                leader.handle_heartbeat_response(self.state, message)
            case ReadIndexRequest():
                leader.handle_read_request(self.state, message)

    # -- what to do --------------------------------------------------------------------------------------------------

    def ready(self, apply_limit: int = APPLY_BATCH) -> Ready:
        """Take what is to be done. Nothing is given twice."""
        state = self.state
        if state.role is Role.LEADER:
            leader.flush(state)
        immediate, state.immediate = tuple(state.immediate), []
        read_states, state.read_states = tuple(state.read_states), []
        soft = state.soft_state
        told, self._told = self._told, soft
        committed = () if self._snapshot is not None else state.log.take_committed(apply_limit)
        return Ready(immediate, self._take_persist(), committed, read_states, soft if soft != told else None)

    def _take_persist(self) -> Persist | None:
        """What is to be written. A commit index alone is not worth a sync: it is found out again after a crash."""
        state = self.state
        if self._is_persisting:
            return None
        hard, entries = state.hard_state, state.log.unstable()
        is_new_vote = (hard.term, hard.vote) != (self._on_disk.term, self._on_disk.vote)
        must_sync = bool(entries) or is_new_vote or self._snapshot is not None
        if not must_sync and not state.after_persist:
            return None
        messages, state.after_persist = tuple(state.after_persist), []
        snapshot, self._snapshot = self._snapshot, None
        self._is_persisting = True
        return Persist(hard, entries, snapshot, messages, must_sync)

    def persisted(self, persist: Persist) -> None:
        """The shell wrote and synced this."""
        assert self._is_persisting, "nothing was being persisted"
        self._is_persisting = False
        state = self.state
        if persist.must_sync:
            self._on_disk = persist.hard_state
            state.stored_term = persist.hard_state.term
        if persist.entries:
            state.log.stable_to(persist.entries[-1].index, persist.entries[-1].term)
        election.persisted(state, persist.hard_state)
        if state.role is Role.LEADER:
            leader.maybe_commit(state)
