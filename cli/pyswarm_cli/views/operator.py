"""What `pyswarm operator` shows: members of Raft, one member's state, the store's objects, replicas. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, human_size, iso_time, printable
from pyswarm_common.codec import timestamp

_ROLES = ("learner", "voter", "leader")
SHORT_DIGEST = 12

PEERS = Columns(
    headings={
        "ID": "ID",
        "Hostname": "HOSTNAME",
        "RaftID": "RAFT ID",
        "Address": "ADDRESS",
        "Role": "ROLE",
        "Reachable": "REACHABLE",
        "MatchIndex": "MATCH INDEX",
        "Lag": "LAG",
        "LastContact": "LAST CONTACT",
        "Zone": "ZONE",
        "Leaving": "LEAVING",
    },
    table=("ID", "Hostname", "RaftID", "Address", "Role", "Reachable", "MatchIndex", "Lag"),
)
KINDS = Columns(
    headings={"Kind": "KIND", "Objects": "OBJECTS", "Size": "SIZE", "Bytes": "BYTES", "Largest": "LARGEST"},
    table=("Kind", "Objects", "Size", "Largest"),
    quiet="Kind",
)
OBJECTS = Columns(
    headings={
        "ID": "ID",
        "Name": "NAME",
        "Kind": "KIND",
        "Size": "SIZE",
        "Bytes": "BYTES",
        "Version": "VERSION",
        "UpdatedSince": "UPDATED",
        "UpdatedAt": "UPDATED AT",
    },
    table=("ID", "Name", "Size", "Version", "UpdatedSince"),
)
REPLICAS = Columns(
    headings={
        "ID": "ID",
        "Hostname": "HOSTNAME",
        "Address": "ADDRESS",
        "Digest": "DIGEST",
        "FullDigest": "DIGEST",
        "Status": "STATUS",
    },
    table=("ID", "Hostname", "Address", "Digest", "Status"),
)


def peer(member: Any) -> Row:
    """One line of `operator raft list-peers`."""
    is_known = member.match_index > 0
    return {
        "ID": member.node_id or "-",
        "Hostname": printable(member.hostname) or "-",
        "RaftID": f"{member.raft_id:x}",
        "Address": printable(member.address),
        "Role": _ROLES[member.role] + (" (leaving)" if member.leaving else ""),
        "Reachable": _yes(member.reachable),
        "MatchIndex": str(member.match_index) if is_known else "-",
        "Lag": str(member.lag) if is_known else "-",
        "LastContact": f"{member.last_contact_s:.1f}s ago",
        "Zone": printable(member.zone),
        "Leaving": _yes(member.leaving),
    }


def raft_state(state: Any) -> dict[str, Any]:
    """`operator raft state`."""
    is_leader = state.role == "leader"
    return {
        "NodeID": state.node_id,
        "RaftID": f"{state.raft_id:x}",
        "Role": state.role,
        "Term": state.term,
        "Vote": f"{state.vote:x}" if state.vote else "none",
        "Leader": _leader(state),
        "LastIndex": state.last_index,
        "CommitIndex": state.commit_index,
        "AppliedIndex": state.applied_index,
        "StoreIndex": state.store_index,
        "SnapshotIndex": state.snapshot_index,
        "SnapshotTerm": state.snapshot_term,
        "LogEntries": state.log_entries,
        "LogBytes": state.log_bytes,
        "PendingProposals": state.pending_proposals,
        "PendingBytes": state.pending_bytes,
        "Disk": printable(state.disk),
        "Members": [_member(member, is_leader=is_leader) for member in state.members],
    }


def _leader(state: Any) -> str:
    if not state.leader_raft_id:
        return "none known"
    for member in state.members:
        if member.raft_id == state.leader_raft_id and member.hostname:
            return f"{printable(member.hostname)} ({state.leader_raft_id:x}) at {printable(state.leader_address)}"
    return f"{state.leader_raft_id:x} at {printable(state.leader_address)}"


def _member(member: Any, *, is_leader: bool) -> dict[str, Any]:
    """What only the leader knows is left out where another one answers."""
    row = peer(member)
    shown = ["ID", "Hostname", "RaftID", "Address", "Role"]
    return {name: row[name] for name in (*shown, *(["Reachable", "MatchIndex", "LastContact"] if is_leader else []))}


def raft_state_lines(facts: dict[str, Any]) -> Iterable[str]:
    """The same as text."""
    for name, value in facts.items():
        if name != "Members":
            yield f"{name}: {value}"
            continue
        yield "Members:"
        for member in value:
            about = ", ".join(f"{key} {item}" for key, item in member.items() if key not in ("Hostname", "ID"))
            yield f" {member['Hostname']} ({member['ID']}): {about}"


def kind(item: Any) -> Row:
    """One line of `operator store inspect`."""
    largest = [f"{printable(one.name) or one.id} {human_size(one.bytes)}" for one in item.largest]
    return {
        "Kind": item.kind,
        "Objects": item.objects,
        "Size": human_size(item.bytes),
        "Bytes": item.bytes,
        "Largest": ", ".join(largest) or "-",
    }


def stored(item: Any, now: float) -> Row:
    """One line of `operator store inspect --objects`."""
    updated_at = timestamp(item.updated_at)
    return {
        "ID": item.id,
        "Name": printable(item.name) or "-",
        "Kind": item.kind,
        "Size": human_size(item.bytes),
        "Bytes": item.bytes,
        "Version": item.version,
        "UpdatedSince": ago(updated_at, now) if updated_at else "-",
        "UpdatedAt": iso_time(updated_at),
    }


def agreed_digest(replicas: Sequence[Any]) -> str:
    """The digest that most replicas have, the lowest of equally many: it is what the others differ from."""
    counted = Counter(replica.digest for replica in replicas if replica.digest)
    return min(counted, key=lambda digest: (-counted[digest], digest), default="")


def replica(item: Any, agreed: str) -> Row:
    """One line of `operator check`."""
    compared = "equal" if item.digest == agreed else "DIFFERS"
    status = compared if item.digest else f"unknown: {printable(item.error)}"
    return {
        "ID": item.node_id or "-",
        "Hostname": printable(item.hostname) or "-",
        "Address": printable(item.address),
        "Digest": item.digest[:SHORT_DIGEST] or "-",
        "FullDigest": item.digest,
        "Status": status,
    }


def name_of(item: Any) -> str:
    """What people call the node."""
    return printable(item.hostname) or item.node_id or printable(item.address)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
