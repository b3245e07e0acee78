"""Leading: feeding followers, committing, confirming reads, handing over, stepping down.

Commit rule: an entry is committed when a majority of voters has it on disk AND it is of the leader's own term (thesis
§3.6.2); older entries commit with it. The leader's own disk counts like any other, only once written, so its fsync runs
in parallel with the followers' (§10.2.1).
"""

from __future__ import annotations

from pyswarm_manager.raft.core import lease
from pyswarm_manager.raft.core.log import ENTRY_OVERHEAD
from pyswarm_manager.raft.core.messages import (
    Append,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
)
from pyswarm_manager.raft.core.progress import Progress, ProgressState
from pyswarm_manager.raft.core.reads import WaitingRead
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import NOBODY, EntryKind, ProposalRefused, ReadState, Role

SNAPSHOT_RETRY_ELECTIONS = 10
"""After this many election timeouts without an answer, a snapshot is taken for lost."""


def take_office(state: RaftState) -> None:
    """Won: append a no-op, since nothing commits before an entry of this term does."""
    assert state.role is Role.CANDIDATE, "only a candidate can win an election"
    state.forget_candidacy_and_lead()
    state.role = Role.LEADER
    state.leader_id = state.id
    state.leader_is_refused, state.hurried_campaigns = False, 0
    state.lease_is_given_up = False
    state.heartbeat_elapsed = state.options.heartbeat_ticks  # the first heartbeat goes out with the no-op
    state.pending_conf_index = state.log.last_index
    for peer in {**state.committed_configuration.members, **state.configuration.members}:
        if peer != state.id:
            state.progress[peer] = Progress(state.log.last_index + 1, state.now)
    state.term_start_index = state.append_own(EntryKind.NOOP, [b""])


def step_down(state: RaftState) -> None:
    """Stop leading in this term, for whoever can."""
    state.become_follower(state.term, NOBODY)


# -- time ----------------------------------------------------------------------------------------------------------


def tick(state: RaftState) -> None:
    """Time passes for the leader."""
    if state.transferee != NOBODY:
        state.transfer_elapsed += 1
        if state.transfer_elapsed >= state.options.election_ticks:
            state.transferee = NOBODY  # it did not take over in time: go on leading
    state.heartbeat_elapsed += 1
    if state.heartbeat_elapsed >= state.options.heartbeat_ticks:
        if not _is_heard_by_majority(state):
            step_down(state)
            return
        _beat(state)
    _tell_commit(state)


def _is_heard_by_majority(state: RaftState) -> bool:
    """Check-quorum: a leader that a majority no longer answers must not go on answering clients."""
    heard = sum(1 for v in state.voters if v == state.id or is_active(state, state.progress[v]))
    return heard >= state.quorum()


def is_active(state: RaftState, progress: Progress) -> bool:
    """Whether this follower was heard of lately."""
    return state.now - progress.last_heard < state.options.election_ticks


def _beat(state: RaftState) -> None:
    send_heartbeats(state)
    for progress in state.progress.values():
        progress.poke = True
        _expire_snapshot(state, progress)


def send_heartbeats(state: RaftState) -> None:
    """Tell every follower that we lead, and how far what it has is committed."""
    state.heartbeat_elapsed = 0
    for peer, progress in state.progress.items():
        commit = min(progress.match, state.log.committed)
        progress.sent_commit = max(progress.sent_commit, commit)
        state.send(Heartbeat(peer, state.id, state.term, commit, state.reads.round, state.now_us))


def _expire_snapshot(state: RaftState, progress: Progress) -> None:
    patience = SNAPSHOT_RETRY_ELECTIONS * state.options.election_ticks
    if progress.state is ProgressState.SNAPSHOT and state.now - progress.snapshot_sent_at > patience:
        progress.snapshot_index = 0
        progress.become_probe()


def _tell_commit(state: RaftState) -> None:
    """Followers learn a commit with the next entries; where none follow, within a tick."""
    for peer, progress in state.progress.items():
        if progress.state is ProgressState.REPLICATE and progress.sent_commit < state.log.committed:
            _send_entries(state, peer, progress, allow_empty=True)


# -- proposals -----------------------------------------------------------------------------------------------------


def propose(state: RaftState, kind: EntryKind, datas: list[bytes]) -> int:
    """Append entries; the index of the first. They go out with the next `flush`."""
    if state.role is not Role.LEADER:
        raise ProposalRefused("this manager does not lead")
    if state.transferee != NOBODY:
        raise ProposalRefused("leadership is moving to another manager")
    return state.append_own(kind, datas)


def propose_change(state: RaftState, data: bytes) -> int:
    """Append a membership change: one at a time, and none before this term's no-op has committed."""
    if state.role is Role.LEADER and state.log.committed < max(state.pending_conf_index, state.term_start_index):
        raise ProposalRefused("another membership change is under way")
    index = propose(state, EntryKind.CONFIG, [data])
    state.pending_conf_index = index
    return index


# -- feeding followers ---------------------------------------------------------------------------------------------


def flush(state: RaftState) -> None:
    """Send whatever the followers' windows allow. Called once per batch of events, so entries travel together."""
    for peer, progress in list(state.progress.items()):
        while _feed(state, peer, progress):
            pass
    if state.log.committed >= state.term_start_index and state.reads.start_round(state.log.committed):
        send_heartbeats(state)
    if state.reads.is_waiting:
        _release_reads(state)  # with fewer voters, what has been answered may be enough
    _hand_over(state)


def _feed(state: RaftState, peer: int, progress: Progress) -> bool:
    """Send one message, if there is something to say; whether there may be more."""
    match progress.state:
        case ProgressState.PROBE:
            if progress.probe_sent:
                return False
            _send_entries(state, peer, progress, allow_empty=True)
            return False
        case ProgressState.REPLICATE:
            options = state.options
            if progress.is_full(options.max_inflight_messages, options.max_inflight_bytes):
                return False
            return _send_entries(state, peer, progress, allow_empty=False)
        case ProgressState.SNAPSHOT:
            return False


def _send_entries(state: RaftState, peer: int, progress: Progress, *, allow_empty: bool) -> bool:
    """Send the next entries; whether any were sent."""
    log, prev = state.log, progress.next - 1
    prev_term = log.term(prev)
    if prev_term is None or progress.next <= log.base_index:
        _send_snapshot(state, peer, progress)
        return False
    room = log.last_index >= progress.next
    full = progress.is_full(state.options.max_inflight_messages, state.options.max_inflight_bytes)
    entries = log.slice(progress.next, state.options.max_append_bytes) if room and not full else ()
    if not entries and not allow_empty:
        return False
    state.send(Append(peer, state.id, state.term, prev, prev_term, log.committed, entries))
    progress.sent_commit = max(progress.sent_commit, log.committed)
    progress.probe_sent = True
    if entries and progress.state is ProgressState.REPLICATE:
        size = sum(len(entry.data) + ENTRY_OVERHEAD for entry in entries)
        progress.sent(entries[-1].index, size)
    return bool(entries)


def _send_snapshot(state: RaftState, peer: int, progress: Progress) -> None:
    """Begin to; for one that does not answer, not before it answers a heartbeat."""
    if not is_active(state, progress):
        progress.become_probe()
        progress.probe_sent = True
        return
    snapshot = state.log.snapshot
    state.send(InstallSnapshot(peer, state.id, state.term, snapshot))
    progress.become_snapshot(snapshot.index, state.now)


def handle_append_response(state: RaftState, response: AppendResponse) -> None:
    """A follower stored entries, or found that its log differs."""
    progress = state.progress.get(response.sender)
    if progress is None:
        return
    progress.last_heard = state.now
    if response.rejected:
        hint, _ = state.log.conflict_hint(response.hint_index, response.hint_term)
        progress.reject(response.index, hint)
        return
    is_news = progress.acknowledge(response.index)
    _advance_state(state, progress)
    if is_news:
        progress.poke = False
        maybe_commit(state)


def _advance_state(state: RaftState, progress: Progress) -> None:
    match progress.state:
        case ProgressState.PROBE:
            progress.become_replicate()
        case ProgressState.SNAPSHOT:
            if progress.match >= state.log.base_index:
                progress.become_replicate()
            elif progress.match >= progress.snapshot_index:
                progress.become_probe()  # our log was shortened meanwhile: it needs a newer one
        case ProgressState.REPLICATE:
            pass


def snapshot_failed(state: RaftState, peer: int) -> None:
    """The transport could not deliver the snapshot: find out anew what the follower needs."""
    progress = state.progress.get(peer)
    if progress is not None and progress.state is ProgressState.SNAPSHOT:
        progress.snapshot_index = 0
        progress.become_probe()
        progress.probe_sent = True  # until the next heartbeat is answered


def committable_index(state: RaftState) -> int:
    """The highest index that a majority of voters has on disk."""
    stored = [state.log.stable if v == state.id else state.progress[v].match for v in state.voters]
    stored.sort(reverse=True)
    return stored[state.quorum() - 1]


def maybe_commit(state: RaftState) -> None:
    """Apply the commit rule. With a membership change, it ends what was kept up for those that were removed."""
    if not state.voters:
        return
    index = committable_index(state)
    if index <= state.log.committed or state.log.term(index) != state.term:
        return
    before = state.committed_configuration
    state.commit_to(index)
    if state.committed_configuration is not before:
        _change_is_committed(state)


def _change_is_committed(state: RaftState) -> None:
    """Who was removed hears so (best effort, nothing follows), and if that is us, we stop."""
    members = state.configuration.members
    if state.id not in members:
        for peer, progress in state.progress.items():
            _send_entries(state, peer, progress, allow_empty=True)
        step_down(state)
        return
    for peer in [peer for peer in state.progress if peer not in members]:
        progress = state.progress.pop(peer)
        if progress.state is ProgressState.REPLICATE:
            _send_entries(state, peer, progress, allow_empty=True)


# -- heartbeats and reads ------------------------------------------------------------------------------------------


def handle_heartbeat_response(state: RaftState, response: HeartbeatResponse) -> None:
    """A follower still follows: its reads are confirmed, and if it fell silent about entries, ask again."""
    progress = state.progress.get(response.sender)
    if progress is None:
        return
    progress.last_heard = state.now
    progress.acked_round = max(progress.acked_round, response.round)
    progress.disk_is_full = response.disk_is_full
    lease.renewed(state, progress, response.sent_us)
    _release_reads(state)
    if not progress.poke:
        return
    progress.poke = False
    match progress.state:
        case ProgressState.PROBE:
            progress.probe_sent = False
        case ProgressState.REPLICATE:
            if progress.match < progress.next - 1:
                _send_entries(state, response.sender, progress, allow_empty=True)
        case ProgressState.SNAPSHOT:
            _ask_for_snapshot(state, response.sender, progress)


def _ask_for_snapshot(state: RaftState, peer: int, progress: Progress) -> None:
    """Has the snapshot arrived? Its acknowledgement may have been lost; a refusal of this is ignored."""
    index = progress.snapshot_index
    term = state.log.term(index)
    if term is not None:
        state.send(Append(peer, state.id, state.term, index, term, state.log.committed))


def read_index(state: RaftState, context: int) -> bool:
    """Queue a read of ours; False if too many wait."""
    return state.reads.add(WaitingRead(context, state.id))


def handle_read_request(state: RaftState, request: ReadIndexRequest) -> None:
    """A follower's read is answered at once while our lease lasts, and waits like ours otherwise. Beyond the limit it
    is dropped, and the follower asks again."""
    if lease.holds(state, state.now_us):
        answer = ReadIndexResponse(request.sender, state.id, state.term, request.context, state.log.committed)
        state.send(answer)
    else:
        state.reads.add(WaitingRead(request.context, request.sender))


def _release_reads(state: RaftState) -> None:
    rounds = [state.reads.round if v == state.id else state.progress[v].acked_round for v in state.voters]
    rounds.sort(reverse=True)
    for read in state.reads.confirmed(rounds[state.quorum() - 1]):
        if read.origin == state.id:
            state.read_states.append(ReadState(read.context, read.index))
        else:
            state.send(ReadIndexResponse(read.origin, state.id, state.term, read.context, read.index))


# -- handing over --------------------------------------------------------------------------------------------------


def transfer(state: RaftState, peer: int) -> None:
    """Begin to hand over: no new proposals, and once `peer` has everything it is told to campaign."""
    if state.role is not Role.LEADER or peer not in state.voters or peer == state.id:
        raise ProposalRefused("leadership can only be handed by the leader to another voter")
    lease.give_up(state)  # for good: the word to campaign may arrive late, also after the transfer was given up
    state.transferee, state.transfer_elapsed, state.transfer_is_told = peer, 0, False


def _hand_over(state: RaftState) -> None:
    progress = state.progress.get(state.transferee)
    if progress is None or state.transfer_is_told or progress.match != state.log.last_index:
        return
    state.send(TimeoutNow(state.transferee, state.id, state.term))
    state.transfer_is_told = True
