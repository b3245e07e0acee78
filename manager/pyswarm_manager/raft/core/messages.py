"""What members say to one another. One frozen struct per kind; the transport carries them, the core answers them.

`term` is the sender's term, except in a pre-vote, where it is the term the sender would campaign in.
"""

from __future__ import annotations

import msgspec

from pyswarm_manager.raft.core.types import Entry, Snapshot


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What every message has."""

    to: int
    sender: int
    term: int


class VoteRequest(Envelope, frozen=True, gc=False):
    """Asks for a vote (`pre`: asks whether one would be given). `transfer`: the old leader asked for this election."""

    last_index: int
    last_term: int
    pre: bool = False
    transfer: bool = False


class VoteResponse(Envelope, frozen=True, gc=False):
    """Answers a VoteRequest. A granted pre-vote repeats the term that was asked for."""

    granted: bool
    pre: bool = False


class Append(Envelope, frozen=True, gc=False):
    """The leader's entries after (`prev_index`, `prev_term`)."""

    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...] = ()


class AppendResponse(Envelope, frozen=True, gc=False):
    """Everything up to `index` is stored; or, if `rejected`, the log differs at `index` and may agree at the hint."""

    index: int
    rejected: bool = False
    hint_index: int = 0
    hint_term: int = 0


class Heartbeat(Envelope, frozen=True, gc=False):
    """The leader lives. `round` counts up: an answer to round r confirms all reads asked for before r was sent."""

    commit: int
    round: int = 0
    sent_us: int = 0  # by the leader's clock; the answer repeats it


class HeartbeatResponse(Envelope, frozen=True, gc=False):
    """The sender still follows the leader of this term, as of heartbeat `round`."""

    round: int = 0
    sent_us: int = 0
    disk_is_full: bool = False


class InstallSnapshot(Envelope, frozen=True, gc=False):
    """The leader's log no longer reaches back to what the follower lacks: take this state instead."""

    snapshot: Snapshot


class TimeoutNow(Envelope, frozen=True, gc=False):
    """The leader hands over: campaign at once."""


class ReadIndexRequest(Envelope, frozen=True, gc=False):
    """A follower asks its leader for a read index."""

    context: int


class ReadIndexResponse(Envelope, frozen=True, gc=False):
    """The leader's commit index, confirmed by a majority after the request."""

    context: int
    index: int


Message = (
    VoteRequest
    | VoteResponse
    | Append
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexResponse
)
