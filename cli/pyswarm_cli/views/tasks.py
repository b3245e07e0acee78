"""Rows of `service ps` and `node ps`: tasks in slots, the newest first, history below it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, printable, short_id, truncate
from pyswarm_cli.views.services import ports
from pyswarm_common.codec import timestamp
from pyswarm_common.model import PublishMode, TaskState

COLUMNS = Columns(
    headings={
        "ID": "ID",
        "Name": "NAME",
        "Image": "IMAGE",
        "Node": "NODE",
        "DesiredState": "DESIRED STATE",
        "CurrentState": "CURRENT STATE",
        "Error": "ERROR",
        "Ports": "PORTS",
    },
    table=("ID", "Name", "Image", "Node", "DesiredState", "CurrentState", "Error", "Ports"),
)
_ERROR_WIDTH = 30


def name(task: Any) -> str:
    """ "web.1", or "web.<node id>" of a global service."""
    return f"{task.service_name}.{task.slot or task.node_id}"


def rows(
    tasks: Iterable[Any], nodes: Mapping[str, str], now: float, *, no_trunc: bool = False, no_resolve: bool = False
) -> list[Row]:
    """All lines; earlier tasks of a slot are marked as in docker."""
    ordered = sorted(tasks, key=_order)
    out, previous = [], ""
    for task in ordered:
        shown = name(task)
        if no_resolve:
            shown = f"{task.service_id}.{task.slot or task.node_id}"
        mark = " \\_ " if name(task) == previous else ""
        previous = name(task)
        node = task.node_id if no_resolve else nodes.get(task.node_id, task.node_id)
        out.append(_row(task, mark + shown, node, now, no_trunc))
    return out


def _order(task: Any) -> tuple[str, int, str, float, str]:
    created = timestamp(task.meta.created_at) if task.meta.HasField("created_at") else 0.0
    return task.service_name, task.slot, "" if task.slot else task.node_id, -created, task.id


def _row(task: Any, shown_name: str, node: str, now: float, no_trunc: bool) -> Row:
    error = printable(reason(task))
    return {
        "ID": task.id if no_trunc else short_id(task.id),
        "Name": shown_name,
        "Image": task.spec.container.image,
        "Node": node,
        "DesiredState": _desired_state(task),
        "CurrentState": current_state(task, now),
        "Error": f'"{error if no_trunc else truncate(error, _ERROR_WIDTH)}"' if error else "",
        "Ports": ports(task.ports, PublishMode.HOST) if task.status.state == TaskState.RUNNING else "",
    }


def _desired_state(task: Any) -> str:
    """A job's task is there to complete."""
    if task.job_iteration and task.desired_state == TaskState.RUNNING:
        return TaskState.COMPLETE.name.capitalize()
    return TaskState(task.desired_state).name.capitalize()


def reason(task: Any) -> str:
    """Why it failed; of a task that waits for a node, why none suits."""
    if task.status.err:
        return str(task.status.err)
    return str(task.status.message) if task.status.state <= TaskState.PENDING else ""


def current_state(task: Any, now: float) -> str:
    """ "Running 3 minutes ago"."""
    state = TaskState(task.status.state).name.capitalize()
    since = timestamp(task.status.timestamp) if task.status.HasField("timestamp") else 0.0
    return f"{state} {ago(since, now).replace('Less', 'less').replace('About', 'about')}" if since else state
