"""Rows of `node ls`. Pure."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.views import node_resources
from pyswarm_common.model import Availability, NodeState

COLUMNS = Columns(
    headings={
        "ID": "ID",
        "Self": "SELF",
        "Hostname": "HOSTNAME",
        "Status": "STATUS",
        "Availability": "AVAILABILITY",
        "ManagerStatus": "MANAGER STATUS",
        "EngineVersion": "ENGINE VERSION",
        "Marked": "ID",
    },
    table=("Marked", "Hostname", "Status", "Availability", "ManagerStatus", "EngineVersion"),
)
WITH_RESOURCES = Columns(
    headings={
        **COLUMNS.headings,
        "Tasks": "TASKS",
        "CPUs": "CPUS RESERVED",
        "Memory": "MEMORY RESERVED",
        "Pids": "PIDS RESERVED",
        "Generic": "GENERIC",
    },
    table=("Marked", "Hostname", "Status", "Availability", "Tasks", "CPUs", "Memory", "Pids", "Generic"),
)
# A node that is SUSPECT has lost its session only for the moment; users see it as it was.
_STATES = {NodeState.UNKNOWN: "Unknown", NodeState.DOWN: "Down", NodeState.READY: "Ready", NodeState.SUSPECT: "Ready"}


def row(node: Any, own_id: str, resources: Any = None) -> Row:
    """One line of `node ls`; the node we ask on has a star."""
    mine = node.id == own_id
    return {
        **({} if resources is None else node_resources.cells(resources)),
        "ID": node.id,
        "Marked": f"{node.id} *" if mine else node.id,
        "Self": mine,
        "Hostname": node.description.hostname,
        "Status": _STATES[NodeState(node.status.state)],
        "Availability": Availability(node.spec.availability).name.capitalize(),
        "ManagerStatus": manager_status(node),
        "EngineVersion": node.description.engine_version,
    }


def manager_status(node: Any) -> str:
    """Leader, Reachable, Learner (it has no vote yet), Unreachable; nothing for workers."""
    if not node.HasField("manager_status"):
        return ""
    status = node.manager_status
    if status.leader:
        return "Leader"
    if not status.reachable:
        return "Unreachable"
    return "Learner" if status.learner else "Reachable"


def sort_key(node: Any) -> tuple[str, str]:
    """By host name, with its numbers as numbers (n2 before n10)."""
    name = node.description.hostname
    head = name.rstrip("0123456789")
    return f"{head}{name[len(head) :].zfill(9)}", node.id
