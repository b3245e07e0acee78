"""Following: taking the leader's entries, heartbeats and snapshots. A term has one leader, so its word holds.

Answers promise what is stored, so they leave only after it is on disk.
"""

from __future__ import annotations

from pyswarm_manager.raft.core import election, lease
from pyswarm_manager.raft.core.messages import (
    Append,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexRequest,
    ReadIndexResponse,
)
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import NOBODY, LogLost, ReadState, Role, Snapshot


def hear_leader(state: RaftState, leader_id: int) -> None:
    """The leader of our term spoke: whoever campaigned in this term has lost."""
    assert state.role is not Role.LEADER, f"{leader_id} and {state.id} both lead in term {state.term}"
    if state.role is Role.FOLLOWER and state.leader_id == leader_id:
        state.election_elapsed = 0
        if state.leader_is_refused:
            state.become_follower(state.term, leader_id)  # it is back: restore the usual timeout
    else:
        state.become_follower(state.term, leader_id)


def handle_append(state: RaftState, message: Append) -> None:
    """Store what fits onto our log; where it does not, say where the logs may agree."""
    log = state.log
    if message.prev_index < log.committed:
        _accept(state, message.sender, log.committed)
        return
    last = log.merge(message.prev_index, message.prev_term, message.entries)
    if last is None:
        hint_index, hint_term = log.conflict_hint(message.prev_index, message.prev_term)
        state.send_after_persist(
            AppendResponse(message.sender, state.id, state.term, message.prev_index, True, hint_index, hint_term)
        )
        return
    state.follow_log()
    state.commit_to(min(message.commit, last))
    _accept(state, message.sender, last)


def _accept(state: RaftState, leader_id: int, index: int) -> None:
    state.send_after_persist(AppendResponse(leader_id, state.id, state.term, index))


def handle_heartbeat(state: RaftState, message: Heartbeat) -> None:
    """The leader only names a commit index that we said to be on our disk; a log that ends before it was lost since."""
    if message.commit > state.log.last_index:
        raise LogLost(
            f"the leader knows the log of this member up to {message.commit}, and it ends at {state.log.last_index}"
        )
    state.commit_to(message.commit)
    lease.promise(state)
    answer = HeartbeatResponse(message.sender, state.id, state.term, message.round, message.sent_us, state.disk_is_full)
    # It promises our term and no entry: with a full disk a member still says whom it follows.
    if state.stored_term == state.term:
        state.send(answer)
    else:
        state.send_after_persist(answer)


def handle_snapshot(state: RaftState, message: InstallSnapshot) -> Snapshot | None:
    """Take the state instead of the log; returns it if it is to be stored and restored."""
    snapshot, log = message.snapshot, state.log
    if snapshot.index <= log.committed:
        _accept(state, message.sender, log.committed)
        return None
    if log.term(snapshot.index) == snapshot.term:
        # Our log reaches as far: the snapshot only tells us that all of it is committed.
        state.commit_to(snapshot.index)
        _accept(state, message.sender, snapshot.index)
        return None
    log.restore(snapshot)
    state.begin_configurations()
    _accept(state, message.sender, snapshot.index)
    return snapshot


def refuse_old_leader(state: RaftState, sender: int) -> None:
    """A leader of a term that has passed: an answer in our term makes it step down (etcd-io/raft, checkQuorum)."""
    state.send_after_persist(AppendResponse(sender, state.id, state.term, 0, True))


def campaign_by_transfer(state: RaftState) -> None:
    """The leader hands over to us; no pre-vote, since it stopped working for this."""
    if state.role is Role.FOLLOWER and state.may_campaign():
        election.campaign(state, pre=False, transfer=True)


def forward_read(state: RaftState, context: int) -> bool:
    """Ask the leader for a read index; False if none is known."""
    if state.leader_id == NOBODY:
        return False
    state.send(ReadIndexRequest(state.leader_id, state.id, state.term, context))
    return True


def handle_read_response(state: RaftState, message: ReadIndexResponse) -> None:
    """The leader confirmed a read of ours."""
    state.read_states.append(ReadState(message.context, message.index))
