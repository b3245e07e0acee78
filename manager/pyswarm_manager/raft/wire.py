"""Messages of the core as protobuf and back. Sender and receiver are said once per stream, not in each message.

What comes in is from another manager of this cluster (mTLS), and still checked for what the core takes for granted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyswarm.v1 import raft_pb2 as pb
from pyswarm_common.errors import InvalidArgument
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
from pyswarm_manager.raft.core.types import Configuration, Entry, EntryKind, Member, MemberRole, Snapshot

CHUNK_BYTES = 256 * 1024

_KINDS = {kind.value: kind for kind in EntryKind}


def encode(message: Message) -> pb.RaftMessage:
    """One message for a batch. A snapshot is no such message: see `snapshot_chunks`."""
    term = message.term
    match message:
        case Append():
            return pb.RaftMessage(term=term, append=_encode_append(message))
        case AppendResponse(index=index, rejected=rejected, hint_index=hint_index, hint_term=hint_term):
            answer = pb.RaftAppendResponse(index=index, rejected=rejected, hint_index=hint_index, hint_term=hint_term)
            return pb.RaftMessage(term=term, append_response=answer)
        case Heartbeat(commit=commit, round=round_, sent_us=sent_us):
            beat = pb.RaftHeartbeat(commit=commit, round=round_, sent_us=sent_us)
            return pb.RaftMessage(term=term, heartbeat=beat)
        case HeartbeatResponse(round=round_, sent_us=sent_us, disk_is_full=disk_is_full):
            heard = pb.RaftHeartbeatResponse(round=round_, sent_us=sent_us, disk_is_full=disk_is_full)
            return pb.RaftMessage(term=term, heartbeat_response=heard)
        case VoteRequest(last_index=last_index, last_term=last_term, pre=pre, transfer=transfer):
            request = pb.RaftVoteRequest(last_index=last_index, last_term=last_term, pre=pre, transfer=transfer)
            return pb.RaftMessage(term=term, vote_request=request)
        case VoteResponse(granted=granted, pre=pre):
            return pb.RaftMessage(term=term, vote_response=pb.RaftVoteResponse(granted=granted, pre=pre))
        case TimeoutNow():
            return pb.RaftMessage(term=term, timeout_now=pb.RaftTimeoutNow())
        case ReadIndexRequest(context=context):
            return pb.RaftMessage(term=term, read_index_request=pb.RaftReadIndexRequest(context=context))
        case ReadIndexResponse(context=context, index=index):
            confirmed = pb.RaftReadIndexResponse(context=context, index=index)
            return pb.RaftMessage(term=term, read_index_response=confirmed)
        case InstallSnapshot():
            raise AssertionError("a snapshot travels in chunks")


class BatchEncoder:
    """Batches as bytes. What a leader tells several followers alike is encoded once; one encoder for each moment."""

    def __init__(self) -> None:
        self._last: tuple[Append, bytes] | None = None

    def encoded(self, messages: Sequence[Message]) -> bytes:
        """A batch without the names of its peers."""
        only = messages[0] if len(messages) == 1 else None
        if not isinstance(only, Append):
            return pb.RaftBatch(messages=[encode(message) for message in messages]).SerializeToString()
        if self._last is None or not _say_the_same(self._last[0], only):
            self._last = (only, pb.RaftBatch(messages=[encode(only)]).SerializeToString())
        return self._last[1]


def _say_the_same(one: Append, other: Append) -> bool:
    """But for whom they are to."""
    places = (one.term, one.prev_index, one.prev_term, one.commit)
    return places == (other.term, other.prev_index, other.prev_term, other.commit) and one.entries == other.entries


def _encode_append(message: Append) -> pb.RaftAppend:
    entries = [
        pb.RaftEntry(term=entry.term, kind=entry.kind.value, data=entry.data)  # type: ignore[arg-type]
        for entry in message.entries
    ]
    return pb.RaftAppend(
        prev_index=message.prev_index, prev_term=message.prev_term, commit=message.commit, entries=entries
    )


def decode(message: pb.RaftMessage, sender: int, to: int) -> Message:
    """One message of a batch. Raises InvalidArgument for what this version does not know."""
    term = message.term
    match message.WhichOneof("kind"):
        case "append":
            return _decode_append(message.append, sender, to, term)
        case "append_response":
            a = message.append_response
            return AppendResponse(to, sender, term, a.index, a.rejected, a.hint_index, a.hint_term)
        case "heartbeat":
            h = message.heartbeat
            return Heartbeat(to, sender, term, h.commit, h.round, h.sent_us)
        case "heartbeat_response":
            heard = message.heartbeat_response
            return HeartbeatResponse(to, sender, term, heard.round, heard.sent_us, heard.disk_is_full)
        case "vote_request":
            v = message.vote_request
            return VoteRequest(to, sender, term, v.last_index, v.last_term, v.pre, v.transfer)
        case "vote_response":
            return VoteResponse(to, sender, term, message.vote_response.granted, message.vote_response.pre)
        case "timeout_now":
            return TimeoutNow(to, sender, term)
        case "read_index_request":
            return ReadIndexRequest(to, sender, term, message.read_index_request.context)
        case "read_index_response":
            r = message.read_index_response
            return ReadIndexResponse(to, sender, term, r.context, r.index)
        case _:
            raise InvalidArgument("a Raft message of a kind this manager does not know: run one version everywhere")


def _decode_append(append: pb.RaftAppend, sender: int, to: int, term: int) -> Append:
    entries = []
    for index, entry in enumerate(append.entries, append.prev_index + 1):
        kind = _KINDS.get(entry.kind)
        if kind is None:
            raise InvalidArgument("a Raft entry of a kind this manager does not know: run one version everywhere")
        entries.append(Entry(index, entry.term, kind, entry.data))
    return Append(to, sender, term, append.prev_index, append.prev_term, append.commit, tuple(entries))


def snapshot_chunks(message: InstallSnapshot, peers: pb.RaftPeers) -> Iterator[pb.RaftSnapshotChunk]:
    """A snapshot in pieces that fit into messages."""
    snapshot = message.snapshot
    configuration = snapshot.configuration
    members = [
        pb.RaftConfigurationMember(raft_id=i, address=m.address, is_learner=m.role is MemberRole.LEARNER)
        for i, m in sorted(configuration.members.items())
    ]
    header = pb.RaftSnapshotHeader(
        term=message.term,
        index=snapshot.index,
        index_term=snapshot.term,
        members=members,
        removed=configuration.removed,
        size=len(snapshot.data),
    )
    yield pb.RaftSnapshotChunk(peers=peers, header=header)
    for start in range(0, len(snapshot.data), CHUNK_BYTES):
        yield pb.RaftSnapshotChunk(data=snapshot.data[start : start + CHUNK_BYTES])


def assemble_snapshot(peers: pb.RaftPeers, header: pb.RaftSnapshotHeader, data: bytes) -> InstallSnapshot:
    """The message that the chunks were."""
    members = {
        m.raft_id: Member(m.address, MemberRole.LEARNER if m.is_learner else MemberRole.VOTER) for m in header.members
    }
    configuration = Configuration(members, tuple(header.removed))
    snapshot = Snapshot(header.index, header.index_term, configuration, data)
    return InstallSnapshot(peers.receiver, peers.sender, header.term, snapshot)
