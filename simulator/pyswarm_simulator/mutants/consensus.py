"""Bugs of consensus: what its rules forbid, one rule at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from pyswarm_manager.raft.core import election, follower, leader, lease
from pyswarm_manager.raft.core.log import RaftLog
from pyswarm_manager.raft.core.messages import Append, HeartbeatResponse, ReadIndexResponse
from pyswarm_manager.raft.core.raft import Persist, Raft
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import Entry, HardState, MemberRole, ReadState, Role, Snapshot
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_simulator.manager import RaftDisk
from pyswarm_simulator.planting import planted, replaced


@planted("vote twice in a term", "storm", 120)
def _vote_twice() -> Iterator[None]:
    """Whoever asks gets the vote."""
    original = election.answer_request

    def answer_request(state: RaftState, request: Any) -> None:
        state.vote = 0
        original(state, request)

    with replaced(election, "answer_request", answer_request):
        yield


@planted("skip the fsync", "power", 120)
def _skip_fsync() -> Iterator[None]:
    """A write is called done when it has only been written."""

    def save(self: RaftDisk, hard_state: HardState, entries: tuple[Entry, ...], snapshot: Snapshot | None) -> None:
        MemoryStorage.write(self, hard_state, entries, snapshot)

    with replaced(RaftDisk, "save", save):
        yield


@planted("count on what a killed predecessor did not sync", "storm", 120)
def _trust_what_was_not_synced() -> Iterator[None]:
    """A restarted manager takes whatever it reads for durable."""
    with replaced(MemoryStorage, "load", lambda self: self._written):
        yield


@planted("apply before commit", "partitions", 120)
def _apply_before_commit() -> Iterator[None]:
    """What is in the log is taken for committed."""

    def take_committed(self: RaftLog, limit: int) -> tuple[Entry, ...]:
        self.committed = max(self.committed, self.last_index)
        return original(self, limit)

    original = RaftLog.take_committed
    with replaced(RaftLog, "take_committed", take_committed):
        yield


@planted("forget voted_for on restart", "storm", 300)
def _forget_vote() -> Iterator[None]:
    """A restarted member may vote again in the same term."""
    original = MemoryStorage.load

    def load(self: MemoryStorage) -> Any:
        stored = original(self)
        if stored is None:
            return None
        hard = HardState(stored.hard_state.term, 0, stored.hard_state.commit)
        return type(stored)(stored.raft_id, hard, stored.snapshot, stored.entries)

    with replaced(MemoryStorage, "load", load):
        yield


@planted("majority off by one", "partitions", 120)
def _majority_off_by_one() -> Iterator[None]:
    """Half is enough."""
    with replaced(RaftState, "quorum", lambda self: max(1, len(self.voters) // 2)):
        yield


@planted("commit an old term's entry by count", "topple", 180)
def _commit_old_terms() -> Iterator[None]:
    """Figure 8 of the paper: what a majority has is taken for committed, of whatever term it is."""

    def maybe_commit(state: RaftState) -> None:
        if not state.voters:
            return
        index = leader.committable_index(state)
        if index > state.log.committed:
            state.commit_to(index)

    with replaced(leader, "maybe_commit", maybe_commit):
        yield


@planted("vote for a log that lacks entries", "partitions", 120)
def _vote_for_anybody() -> Iterator[None]:
    """Any log is good enough to lead."""
    with replaced(RaftLog, "is_up_to_date", lambda self, last_index, last_term: True):
        yield


@planted("take entries without looking at what precedes them", "topple", 90)
def _no_consistency_check() -> Iterator[None]:
    """The term of the entry before is not compared."""
    original = RaftLog.merge

    def merge(self: RaftLog, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        known = self.term(prev_index)
        return original(self, prev_index, prev_term if known is None else known, entries)

    with replaced(RaftLog, "merge", merge):
        yield


@planted("keep what the leader contradicts", "partitions", 120)
def _keep_conflicts() -> Iterator[None]:
    """Entries of another term are left where they are, and acknowledged."""

    def merge(self: RaftLog, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        if self.term(prev_index) != prev_term:
            return None
        missing = [entry for entry in entries if entry.index > self.last_index]
        if missing:
            self.append(missing)
        return prev_index + len(entries)

    with replaced(RaftLog, "merge", merge):
        yield


@planted("acknowledge before the disk has it", "power", 120)
def _acknowledge_early() -> Iterator[None]:
    """What promises something leaves at once."""
    with replaced(RaftState, "send_after_persist", lambda self, message: self.immediate.append(message)):
        yield


@planted("forget the term on restart", "storm", 90)
def _forget_term() -> Iterator[None]:
    """A restarted member begins in the term of its last entry."""
    original = MemoryStorage.load

    def load(self: MemoryStorage) -> Any:
        stored = original(self)
        if stored is None:
            return None
        term = stored.entries[-1].term if stored.entries else stored.snapshot.term
        hard = HardState(term, 0, stored.hard_state.commit)
        return type(stored)(stored.raft_id, hard, stored.snapshot, stored.entries)

    with replaced(MemoryStorage, "load", load):
        yield


@planted("commit what the leader committed, not what both have", "partitions", 120)
def _commit_beyond_match() -> Iterator[None]:
    """A follower takes the leader's commit index for the log that it has, whether or not the two agree there."""

    def handle_append(state: RaftState, message: Append) -> None:
        state.commit_to(min(message.commit, state.log.last_index))
        original(state, message)

    original = follower.handle_append
    with replaced(follower, "handle_append", handle_append):
        yield


@planted("a lease that does not end", "reads", 180)
def _endless_lease() -> Iterator[None]:
    """Whoever led once may answer reads, without looking at the clock."""

    def holds(state: RaftState, now_us: int) -> bool:
        del now_us
        return state.role is Role.LEADER and state.log.committed >= state.term_start_index

    with replaced(lease, "holds", holds):
        yield


@planted("a read confirmed by one heartbeat of anybody", "reads", 180)
def _reads_without_quorum() -> Iterator[None]:
    """Read indexes are released when the first follower answers anything, and leases do not matter."""

    def handle(state: RaftState, response: HeartbeatResponse) -> None:
        original(state, replace(response, round=state.reads.round))

    original = leader.handle_heartbeat_response

    def flush(state: RaftState) -> None:
        original_flush(state)
        for read in state.reads.confirmed(state.reads.round):
            if read.origin == state.id:
                state.read_states.append(ReadState(read.context, read.index))
            else:
                state.send(ReadIndexResponse(read.origin, state.id, state.term, read.context, read.index))

    original_flush = leader.flush
    with (
        replaced(leader, "handle_heartbeat_response", handle),
        replaced(leader, "flush", flush),
        replaced(lease, "holds", lambda state, now_us: False),
    ):
        yield


@planted("learners vote", "members", 180)
def _learners_count() -> Iterator[None]:
    """A member that has caught up with nothing counts for the majority that has an entry, but not for its size."""

    def committable_index(state: RaftState) -> int:
        members = state.configuration.members
        learners = [v for v, m in members.items() if m.role is MemberRole.LEARNER and v in state.progress]
        stored = [state.log.stable if v == state.id else state.progress[v].match for v in state.voters]
        stored += [state.progress[v].match for v in learners]
        stored.sort(reverse=True)
        return stored[state.quorum() - 1]

    with replaced(leader, "committable_index", committable_index):
        yield


@planted("the leader's own disk counts before it has written", "power", 120)
def _own_disk_counts_early() -> Iterator[None]:
    """A leader counts entries of its own that are in memory only."""

    def committable_index(state: RaftState) -> int:
        stored = [state.log.last_index if v == state.id else state.progress[v].match for v in state.voters]
        stored.sort(reverse=True)
        return stored[state.quorum() - 1]

    with replaced(leader, "committable_index", committable_index):
        yield


@planted("a write's end is noticed before it", "power", 120)
def _persisted_early() -> Iterator[None]:
    """Entries are called stable when their write begins."""
    original = Raft._take_persist

    def take(self: Raft) -> Persist | None:
        persist = original(self)
        if persist is not None and persist.entries:
            self.state.log.stable_to(persist.entries[-1].index, persist.entries[-1].term)
        return persist

    with replaced(Raft, "_take_persist", take):
        yield
