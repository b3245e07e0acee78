"""Join tokens with limits and the root's replacement, as the user sees them. Pure."""

from __future__ import annotations

from typing import Any

from pyswarm.v1 import types_pb2
from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, expiry, iso_time, printable
from pyswarm_common.codec import timestamp

COLUMNS = Columns(
    headings={
        "ID": "ID",
        "Role": "ROLE",
        "Label": "LABEL",
        "Uses": "USES LEFT",
        "Expires": "EXPIRES",
        "ExpiresAt": "EXPIRES AT",
        "CreatedSince": "CREATED",
    },
    table=("ID", "Role", "Label", "Uses", "Expires", "CreatedSince"),
    quiet="ID",
)
_STATES = {
    types_pb2.NODE_STATE_UNKNOWN: "unknown",
    types_pb2.NODE_STATE_DOWN: "down",
    types_pb2.NODE_STATE_READY: "ready",
    types_pb2.NODE_STATE_SUSPECT: "suspect",
}
_NAMED = 5
_HELP = "start what is down, or remove it (`pyswarm node rm`)"


def row(token: Any, now: float) -> Row:
    """One line of `join-token ls`."""
    expires_at = _expires_at(token)
    return {
        "ID": token.id,
        "Role": "manager" if token.role == types_pb2.NODE_ROLE_MANAGER else "worker",
        "Label": printable(token.label),
        "Uses": f"{token.uses_left}/{token.uses_total}" if token.uses_total else "any",
        "Expires": expiry(expires_at, now),
        "ExpiresAt": iso_time(expires_at) if expires_at else "",
        "CreatedSince": ago(timestamp(token.meta.created_at), now),
    }


def limits(token: Any, now: float) -> str:
    """ "for 3 machines, until in 60 minutes"."""
    machines = "machine" if token.uses_total == 1 else "machines"
    uses = f"for {token.uses_total} {machines}" if token.uses_total else "for any number of machines"
    expires_at = _expires_at(token)
    return f"{uses}, expires {expiry(expires_at, now)}" if expires_at else f"{uses}, never expires"


def _expires_at(token: Any) -> float:
    return timestamp(token.expires_at) if token.HasField("expires_at") else 0.0


def progress(root: Any, width: int) -> str:
    """How many nodes have new certificates, and who holds it up."""
    done, total = root.nodes_rotated, max(1, root.nodes_total)
    filled = width * done // total
    bar = "=" * max(0, filled - 1) + ">" * (done < root.nodes_total or filled > 0)
    line = f"rotated TLS certificates: [{bar.ljust(width)[:width]}] {done}/{root.nodes_total} nodes"
    missing = [node for node in root.waiting if node.state != types_pb2.NODE_STATE_READY]
    if not missing:
        return line
    names = [f"{printable(node.hostname) or node.node_id} ({_STATES.get(node.state, 'unknown')})" for node in missing]
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{line}; waiting for {', '.join(names[:_NAMED])}{rest}: {_HELP}"
