"""The leader's lease: reads without asking anybody (thesis §6.4.1), and the promises of voters that it rests on.

A voter that hears a heartbeat promises to elect nobody else for `promise_us` on its own clock. The leader counts from
when it SENT the heartbeat, and trusts the answers of a majority for `lease_us`, which is shorter by more than clocks
may drift apart. Any majority that could elect another holds one of those voters, so while the lease lasts nobody else
leads, and what this leader has committed is all that anybody was told of.

Time is the shell's (`RaftState.now_us`, which goes on while the process is frozen or the machine asleep), never
counted in ticks: ticks that come late are not caught up with. Decides nothing about elections; `election` asks here.
"""

from __future__ import annotations

from pyswarm_manager.raft.core.progress import Progress
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import Role


def promise(state: RaftState) -> None:
    """A heartbeat was heard, and will be answered: elect nobody else for a while."""
    state.promised_until_us = state.now_us + state.options.promise_us


def is_promised(state: RaftState) -> bool:
    """Whether our vote may still count for a leader's lease. No vote may be given then, not even to ourselves, unless
    the leader itself asked for the election: it gave up its lease before."""
    return state.now_us < state.promised_until_us


def renewed(state: RaftState, progress: Progress, sent_us: int) -> None:
    """A follower answered the heartbeat that we sent then."""
    progress.acked_sent_us = max(progress.acked_sent_us, min(sent_us, state.now_us))


def give_up(state: RaftState) -> None:
    """No lease for the rest of the term: somebody may be elected against the voters' promises."""
    state.lease_is_given_up = True


def holds(state: RaftState, now_us: int) -> bool:
    """Whether nobody else can have been elected at `now_us`, which must have been read after the question arose.

    Not before an entry of this term is committed, since until then we may not know all that is; and not while we
    lead without being a voter (removing ourselves), since a majority may then do without us.
    """
    is_able = state.role is Role.LEADER and state.log.committed >= state.term_start_index and state.is_voter()
    if not is_able or state.lease_is_given_up:
        return False
    sent = [now_us if v == state.id else state.progress[v].acked_sent_us for v in state.voters]
    sent.sort(reverse=True)
    return now_us < sent[state.quorum() - 1] + state.options.lease_us
