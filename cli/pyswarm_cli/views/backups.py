"""Backups as the user sees them: rows of `backup ls`, and the lines about one file. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyswarm_cli.failures import one_line
from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, human_size, iso_time
from pyswarm_common.codec import timestamp

if TYPE_CHECKING:  # cryptography comes with it, which most commands can do without
    from pyswarm_common.backup.container import Header, Summary

COLUMNS = Columns(
    headings={
        "Path": "PATH",
        "Swarm": "SWARM",
        "Index": "INDEX",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "KeyID": "KEY",
        "Error": "ERROR",
    },
    table=("Path", "Index", "CreatedSince", "Size", "KeyID", "Error"),
    quiet="Path",
)


def row(backup: Any, now: float) -> Row:
    """One line of `backup ls`."""
    made = timestamp(backup.created_at) if backup.HasField("created_at") else 0.0
    return {
        "Path": backup.path,
        "Swarm": one_line(backup.cluster_id),
        "Index": str(backup.index) if made else "N/A",
        "CreatedSince": ago(made, now) if made else "N/A",
        "CreatedAt": iso_time(made),
        "Size": human_size(backup.size_bytes),
        "KeyID": one_line(backup.key_id),
        "Error": one_line(backup.error),
    }


def described(path: str, size: int, header: Header, summary: Summary | None) -> dict[str, Any]:
    """Everything `backup inspect` knows. Without a key there is no summary, and the contents are not verified."""
    facts: dict[str, Any] = {
        "Path": path,
        "SizeBytes": size,
        "Format": header.format,
        "SwarmID": one_line(header.cluster_id),
        "SwarmName": one_line(header.cluster_name),
        "Index": header.index,
        "Term": header.term,
        "CreatedAt": iso_time(header.created_at),
        "MadeBy": one_line(header.made_by),
        "Version": one_line(header.version),
        "SealedWith": "passphrase" if header.passphrase is not None else "backup key",
        "KeyID": one_line(header.key_id),
        "Objects": {one_line(kind): count for kind, count in header.counts.items()},
        "ChecksumVerified": True,
        "ContentsVerified": summary is not None,
    }
    if summary is not None:
        facts["Managers"] = [
            {"ID": one_line(m.node_id), "Hostname": one_line(m.hostname), "Address": one_line(m.address)}
            for m in summary.managers
        ]
        facts["Services"] = [one_line(name) for name in summary.services]
    return facts


def lines(facts: dict[str, Any], created_at: float, now: float) -> list[str]:
    """The same for people."""
    key = "a passphrase" if facts["SealedWith"] == "passphrase" else f"the swarm's backup key {facts['KeyID']}"
    verified = "verified with the key" if facts["ContentsVerified"] else "sealed (--key-file FILE verifies them)"
    out = [
        f"Backup:    {facts['Path']} ({human_size(facts['SizeBytes'])})",
        f"Swarm:     {facts['SwarmID']} ({facts['SwarmName']})",
        f"Made:      {facts['CreatedAt']} ({ago(created_at, now)}), on {facts['MadeBy']}, pyswarm {facts['Version']}",
        f"Index:     {facts['Index']} (term {facts['Term']})",
        f"Objects:   {objects(facts['Objects'])}",
        f"Opens by:  {key}",
        "Checksum:  verified",
        f"Contents:  {verified}",
    ]
    if "Managers" in facts:
        out += [f"Manager:   {m['Hostname']} {m['Address']} ({m['ID']})" for m in facts["Managers"]]
    return out


def objects(counts: dict[str, int]) -> str:
    """ "3 nodes, 1 service"."""
    words = [f"{n} {kind.replace('_', ' ')}{'' if n == 1 else 's'}" for kind, n in counts.items() if kind != "cluster"]
    return ", ".join(words) or "none"
