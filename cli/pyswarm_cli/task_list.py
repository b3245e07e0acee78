"""The list of tasks that `node ps`, `service ps` and `task ls` share: which are shown, and how."""

from __future__ import annotations

import time
from typing import Any

import click

from pyswarm_cli.connection import Connection
from pyswarm_cli.listing import all_tasks, node_names
from pyswarm_cli.output.rows import show
from pyswarm_cli.params import filters
from pyswarm_cli.views import tasks as task_view
from pyswarm_common.model import TaskState


def show_tasks(
    connection: Connection,
    service_ids: tuple[str, ...],
    node_ids: list[str],
    filter_: tuple[str, ...],
    format_: str,
    *,
    quiet: bool,
    no_trunc: bool,
    no_resolve: bool,
) -> None:
    """Of these services and nodes; of all when none is named."""
    wanted = filters(filter_, ("id", "name", "label", "node", "desired-state"))
    nodes = node_names(connection)
    found = [
        task
        for task in all_tasks(connection, service_ids, node_ids, {"id": wanted.get("id", [])})
        if _passes(task, wanted, nodes)
    ]
    rows = task_view.rows(found, nodes, time.time(), no_trunc=no_trunc, no_resolve=no_resolve)
    click.echo(show(rows, task_view.COLUMNS, format_, quiet=quiet), nl=False)


def _passes(task: Any, wanted: dict[str, list[str]], nodes: dict[str, str]) -> bool:
    """What the manager does not filter by: states as words, nodes and tasks by name."""
    states = [state.lower() for state in wanted.get("desired-state", [])]
    names, on = wanted.get("name", []), wanted.get("node", [])
    return (
        (not states or TaskState(task.desired_state).name.lower() in states)
        and (not names or any(task_view.name(task).startswith(name) for name in names))
        and (not on or any(task.node_id.startswith(node) or nodes.get(task.node_id) == node for node in on))
    )
