"""Elections: when to campaign, whom to vote for, when an election is won.

Safety rests on two rules kept here: one vote per term, remembered across crashes (the answer leaves only after the vote
is on disk, and so does our own vote for ourselves), and no vote for a log that lacks what ours has.
A pre-vote comes first, so that a member that was cut off cannot depose a working leader by returning with a high term.
A third rule keeps leases honest: no vote, also none for oneself, within what was promised to a leader (`lease`).
"""

from __future__ import annotations

from pyswarm_manager.raft.core import leader, lease
from pyswarm_manager.raft.core.messages import VoteRequest, VoteResponse
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import NOBODY, HardState, Role

HURRIED_CAMPAIGNS = 3
"""How often a pre-vote is repeated soon after the leader's connection was refused, before the usual timeout rules."""

STAGGER_TICKS = 2
"""Members that lose their leader together campaign this far apart, in the order of their ids."""


def tick(state: RaftState) -> None:
    """Time passes for one that does not lead."""
    state.election_elapsed += 1
    if lease.is_promised(state):
        if state.leader_is_refused:
            _hurry(state)
    elif state.election_elapsed >= state.election_timeout and state.may_campaign():
        campaign(state, pre=True)


def leader_lost(state: RaftState, peer: int) -> None:
    """The connection to `peer` broke and was refused when tried again: if it led, do not wait for the timeout.

    This is safe when the leader in fact lives: its majority has heard it lately and refuses the pre-vote. What was
    promised to the leader is kept nevertheless, since a refusal is no proof (a firewall can make one).
    """
    if peer != state.leader_id or state.role is not Role.FOLLOWER or state.leader_is_refused:
        return
    state.leader_is_refused = True
    if not state.may_campaign():
        return
    state.hurried_campaigns = HURRIED_CAMPAIGNS
    if state.rank_without(peer) == 0 and not lease.is_promised(state):
        campaign(state, pre=True)
    else:
        _hurry(state)


def _hurry(state: RaftState) -> None:
    """Campaign after our turn has come, counted from now or from when the promise ends, not after the timeout."""
    delay = max(1, state.rank_without(state.leader_id) * STAGGER_TICKS)
    state.election_timeout = state.election_elapsed + delay


def campaign(state: RaftState, *, pre: bool, transfer: bool = False) -> None:
    """Ask the voters: would you elect me (`pre`), or do you."""
    state.forget_candidacy_and_lead()
    state.leader_id = NOBODY
    _await_outcome(state)
    if pre:
        state.role = Role.PRE_CANDIDATE
        _record_vote(state, state.id, granted=True)
        if state.role is not Role.PRE_CANDIDATE:
            return  # the only voter: already past the pre-vote
        term = state.term + 1
    else:
        assert transfer or state.quorum() == 1 or not lease.is_promised(state), "a promise to the leader was forgotten"
        state.role = Role.CANDIDATE
        state.term += 1
        state.vote = state.id  # counts in `persisted`, once it is on disk
        term = state.term
    log = state.log
    for voter in state.voters:
        if voter != state.id:
            request = VoteRequest(voter, state.id, term, log.last_index, log.last_term, pre, transfer)
            (state.send if pre else state.send_after_persist)(request)


def _await_outcome(state: RaftState) -> None:
    """Give the others time to answer; less of it while in a hurry."""
    hurried = state.hurried_campaigns
    state.reset_election_timeout()
    if hurried > 0:
        state.hurried_campaigns = hurried - 1
        state.election_timeout = state.options.heartbeat_ticks + STAGGER_TICKS * state.rank_without(NOBODY)


def persisted(state: RaftState, hard_state: HardState) -> None:
    """This term and vote are on disk: now our vote for ourselves counts."""
    if state.role is Role.CANDIDATE and (hard_state.term, hard_state.vote) == (state.term, state.id):
        _record_vote(state, state.id, granted=True)


def answer_request(state: RaftState, request: VoteRequest) -> None:
    """Vote, or say no. Terms have been settled before: the request's term is ours, or it is a pre-vote."""
    is_free = state.vote == request.sender or (state.vote == NOBODY and state.leader_id in (NOBODY, request.sender))
    may_vote = is_free or (request.pre and request.term > state.term)
    may_vote = may_vote and (request.transfer or not lease.is_promised(state))
    if may_vote and state.log.is_up_to_date(request.last_index, request.last_term):
        if not request.pre:
            state.vote = request.sender
            state.reset_election_timeout()
        _answer(state, request, request.term, granted=True)
    else:
        _answer(state, request, state.term, granted=False)


def _answer(state: RaftState, request: VoteRequest, term: int, *, granted: bool) -> None:
    state.send_after_persist(VoteResponse(request.sender, state.id, term, granted, request.pre))


def refuse_stale(state: RaftState, request: VoteRequest) -> None:
    """A pre-vote for a term that has passed: tell the sender our term."""
    _answer(state, request, state.term, granted=False)


def handle_response(state: RaftState, response: VoteResponse) -> None:
    """Count an answer to the campaign that is under way."""
    asked = Role.PRE_CANDIDATE if response.pre else Role.CANDIDATE
    if state.role is not asked or (response.pre and response.granted and response.term != state.term + 1):
        return
    _record_vote(state, response.sender, granted=response.granted)


def _record_vote(state: RaftState, voter: int, *, granted: bool) -> None:
    if voter not in state.voters:
        return
    state.votes.setdefault(voter, granted)
    yes = sum(state.votes.values())
    if yes >= state.quorum():
        _won(state)
    elif len(state.votes) - yes > len(state.voters) - state.quorum():
        # A majority is out of reach. The timeout goes on as it was drawn.
        state.role = Role.FOLLOWER
        state.votes = {}


def _won(state: RaftState) -> None:
    if state.role is Role.PRE_CANDIDATE:
        campaign(state, pre=False)
    else:
        leader.take_office(state)
