"""Lines of `events`: what happened to which object, and the audit log's records. Pure.

The plain form is docker's: `TIME type action id (key=value, …)`.
"""

from __future__ import annotations

from typing import Any, Final

from pyswarm_cli.output.rows import Row
from pyswarm_cli.output.words import iso_time, printable
from pyswarm_common.codec import timestamp
from pyswarm_common.model import Availability, NodeState, TaskState

KINDS: Final = {
    "cluster": 1,
    "node": 2,
    "service": 3,
    "task": 4,
    "network": 5,
    "secret": 6,
    "config": 7,
    "service_revision": 8,
}
ACTIONS: Final = {1: "create", 2: "update", 3: "remove"}
EXISTS: Final = "exists"
"""What is told of an object after events were missed."""
HEALTH: Final = "health_status"
FILTERS: Final = (
    *("type", "event", "action", "node", "service", "task", "network", "secret", "config"),
    *("label", "scope", "health", "image"),
)
_HEALTH_KEYS: Final = ("health.old", "health.new")
_ACTOR_KINDS: Final = {1: "local", 2: "certificate", 3: "token", 4: "node", 5: "machine"}


def event_rows(event: Any, at: float, version: int) -> list[Row]:
    """One change of an object, as docker shapes its events. A task whose health changed has an event of its own for
    that, as docker's containers do."""
    kind = event.WhichOneof("object")
    identifier, attributes = getattr(event, kind).id, dict(event.attributes)
    action = ACTIONS.get(event.action, "unknown")
    health = attributes.get("health.new", "")
    if not health:
        return [_row(kind, action, identifier, attributes, at, version)]
    rest = {name: value for name, value in attributes.items() if name not in _HEALTH_KEYS}
    changed = any(name.endswith(".new") for name in rest)
    rows = [_row(kind, action, identifier, rest, at, version)] if changed else []
    return [*rows, _row(kind, f"{HEALTH}: {health}", identifier, attributes, at, version)]


def existing_row(kind: str, item: Any, version: int) -> Row:
    """An object as it was found after events were missed."""
    return _row(kind, EXISTS, item.id, _found(kind, item), timestamp(item.meta.updated_at), version)


def _row(kind: str, action: str, identifier: str, attributes: dict[str, str], at: float, version: int) -> Row:
    return {
        "Type": kind,
        "Action": action,
        "ID": identifier,
        "Actor": {"ID": identifier, "Attributes": attributes},
        "Scope": "swarm",
        "Time": int(at),
        "TimeNano": round(at * 1e9),
        "When": iso_time(at),
        "Version": version,
    }


def _found(kind: str, item: Any) -> dict[str, str]:
    match kind:
        case "node":
            return {
                "name": item.description.hostname,
                "availability": Availability(item.spec.availability).name.lower(),
                "state": NodeState(item.status.state).name.lower(),
            }
        case "task":
            return {
                "name": f"{item.service_name}.{item.slot or item.node_id}",
                "service": item.service_id,
                "service.name": item.service_name,
                "node": item.node_id,
                "desired": TaskState(item.desired_state).name.lower(),
                "state": TaskState(item.status.state).name.lower(),
            }
        case "service":
            return {"name": item.spec.name, "image": item.spec.task.container.image}
    return {"name": item.spec.name}


def passes(row: Row, wanted: dict[str, list[str]], node_names: dict[str, str]) -> bool:
    """Whether an event is among what `--filter` asks for: values of one name are alternatives, names narrow.

    `node_names`: ids of nodes by the names that were given, since tasks know their nodes by id."""
    return all(any(_is(row, name, value, node_names) for value in values) for name, values in wanted.items())


def _is(row: Row, name: str, value: str, node_names: dict[str, str]) -> bool:
    attributes: dict[str, str] = row["Actor"]["Attributes"]
    match name:
        case "type":
            return bool(row["Type"] == value)
        case "task" | "network" | "secret" | "config":
            return row["Type"] == name and _names(row, value)
        case "event" | "action":
            return bool(row["Action"] == value or row["Action"].startswith(f"{value}:"))
        case "scope":
            return bool(row["Scope"] == value)
        case "health":
            return bool(attributes.get("health.new") == value)
        case "label":
            key, equals, content = value.partition("=")
            return key in attributes and (not equals or attributes[key] == content)
        case "image":
            return attributes.get("image", "").startswith(value)
        case "node":
            return _is_of_node(row, value, node_names.get(value, value))
        case "service":
            own = row["Type"] == "service" and _names(row, value)
            return own or _matches(attributes.get("service", ""), value) or attributes.get("service.name") == value
    return False


def _is_of_node(row: Row, value: str, identifier: str) -> bool:
    own = row["Type"] == "node" and (_names(row, value) or _names(row, identifier))
    return own or _matches(row["Actor"]["Attributes"].get("node", ""), identifier)


def _names(row: Row, value: str) -> bool:
    return row["Actor"]["Attributes"].get("name") == value or _matches(row["ID"], value)


def _matches(identifier: str, prefix: str) -> bool:
    return bool(prefix) and identifier.startswith(prefix)


def event_line(row: Row) -> str:
    """As docker prints it, with the attributes in order of their names."""
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(row["Actor"]["Attributes"].items()) if value)
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
