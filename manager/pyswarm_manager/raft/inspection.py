"""One member's consensus state for an operator's eyes: read, never acted on."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import Role

_ROLES = {
    Role.FOLLOWER: "follower",
    Role.PRE_CANDIDATE: "pre-candidate",
    Role.CANDIDATE: "candidate",
    Role.LEADER: "leader",
}


class RaftReport(msgspec.Struct, frozen=True):
    """Indexes, terms and amounts of one member."""

    role: str
    term: int
    vote: int
    last_index: int
    commit_index: int
    snapshot_index: int
    snapshot_term: int
    log_entries: int
    log_bytes: int
    pending_proposals: int
    pending_bytes: int
    last_contact_s: Mapping[int, float]
    """By raft id, as a leader counts it; empty on followers."""
    disk: str


def report(state: RaftState, tick_s: float, pending: tuple[int, int], disk_problem: str) -> RaftReport:
    """What is known now. Walks the log in memory once, which is bounded by the snapshots."""
    log = state.log
    entries = log.slice(log.base_index + 1, 1 << 62) if log.last_index > log.base_index else ()
    heard = {peer: (state.now - progress.last_heard) * tick_s for peer, progress in state.progress.items()}
    return RaftReport(
        role=_ROLES[state.role] if state.is_voter() else "learner",
        term=state.term,
        vote=state.vote,
        last_index=log.last_index,
        commit_index=log.committed,
        snapshot_index=log.snapshot.index,
        snapshot_term=log.snapshot.term,
        log_entries=len(entries),
        log_bytes=sum(len(entry.data) for entry in entries),
        pending_proposals=pending[0],
        pending_bytes=pending[1],
        last_contact_s=heard,
        disk=disk_problem or "ok",
    )
