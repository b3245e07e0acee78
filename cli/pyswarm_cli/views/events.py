"""Lines of `events`: what happened to which object, and the audit log's records. Pure.

The plain form is docker's: `TIME type action id (key=value, …)`.
"""

from __future__ import annotations

from typing import Any, Final

from pyswarm_cli.output.rows import Row
from pyswarm_cli.output.words import iso_time, printable
from pyswarm_common.codec import timestamp
from pyswarm_common.model import Availability, NodeState, TaskState

KINDS: Final = {"cluster": 1, "node": 2, "service": 3, "task": 4, "network": 5}
ACTIONS: Final = {1: "create", 2: "update", 3: "remove"}
_REMOVE: Final = 3
_ACTOR_KINDS: Final = {1: "local", 2: "certificate", 3: "token", 4: "node", 5: "machine"}


def event_row(event: Any, now: float) -> Row:
    """One change of an object, as docker shapes its events."""
    kind = event.WhichOneof("object")
    item = getattr(event, kind)
    is_dated = event.action != _REMOVE and item.meta.HasField("updated_at")
    when = timestamp(item.meta.updated_at) if is_dated else now
    return {
        "Type": kind,
        "Action": ACTIONS.get(event.action, "unknown"),
        "ID": item.id,
        "Actor": {"ID": item.id, "Attributes": _attributes(kind, item)},
        "Scope": "swarm",
        "Time": int(when),
        "TimeNano": round(when * 1e9),
        "When": iso_time(when),
    }


def _attributes(kind: str, item: Any) -> dict[str, str]:
    match kind:
        case "node":
            return {
                "name": item.description.hostname,
                "availability": Availability(item.spec.availability).name.lower(),
                "state": NodeState(item.status.state).name.lower(),
            }
        case "service":
            return {"name": item.spec.name, "image": item.spec.task.container.image}
        case "task":
            return {
                "name": f"{item.service_name}.{item.slot or item.node_id}",
                "service": item.service_id,
                "node": item.node_id,
                "desired": TaskState(item.desired_state).name.lower(),
                "state": TaskState(item.status.state).name.lower(),
            }
        case "network":
            return {"name": item.spec.name, "driver": item.spec.driver}
    return {}


def event_line(row: Row) -> str:
    attributes = ", ".join(f"{name}={value}" for name, value in row["Actor"]["Attributes"].items() if value)
    return printable(f"{row['When']} {row['Type']} {row['Action']} {row['ID']} ({attributes})")


def audit_row(record: Any) -> Row:
    """One record of the audit log."""
    when = timestamp(record.time)
    return {
        "Index": record.index,
        "Time": iso_time(when),
        "ActorKind": _ACTOR_KINDS.get(record.actor_kind, "unknown"),
        "Actor": record.actor,
        "CredentialID": record.credential_id,
        "Role": record.role,
        "Source": record.source,
        "ManagerID": record.manager_id,
        "Method": record.method,
        "Detail": record.detail,
        "Targets": [
            {"Type": target.kind, "ID": target.id, "Name": target.name, "Action": target.action}
            for target in record.targets
        ],
    }


def audit_line(row: Row) -> str:
    who = f"{row['ActorKind']} {row['Actor']}".strip()
    targets = [" ".join(filter(None, (t["Action"], t["Type"], t["Name"] or t["ID"]))) for t in row["Targets"]]
    what = ", ".join([*targets, *filter(None, [row["Detail"]])])
    origin = ", ".join(filter(None, (row["Role"], row["Source"])))
    return printable(f"{row['Time']} {row['Index']} {who} ({origin}) {row['Method']}: {what}")
