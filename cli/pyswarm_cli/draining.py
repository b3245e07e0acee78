"""Waits until a drained node is empty, and shows how it goes: by watching the node's tasks.

The shell around `views.draining`. Ctrl-C ends only the waiting, and says so.
"""

from __future__ import annotations

import time
from typing import Any

import click

from pyswarm.v1 import control_pb2, watch_pb2
from pyswarm_cli.connection import Connection, call
from pyswarm_cli.failures import FromDaemon, Silent, one_line
from pyswarm_cli.listing import all_tasks
from pyswarm_cli.service.follow import Screen
from pyswarm_cli.service.progress import Outcome, Picture
from pyswarm_cli.views.draining import Draining, reasons
from pyswarm_cli.watching import Events, watched
from pyswarm_common import errors
from pyswarm_common.codec import from_proto
from pyswarm_common.model import Node, Task

_LOOK_S = 2.0
"""How often what keeps tasks there is asked for, while nothing happens."""
_SERVICES = 20


def wait_empty(connection: Connection, node: Any, *, quiet: bool = False) -> None:
    """Return when nothing runs on the node any more. Raises Silent after saying why it will not come to that."""
    try:
        picture = _follow(connection, node.id, Screen(quiet))
    except KeyboardInterrupt:
        name = node.description.hostname or node.id
        click.echo("\nThe drain continues in background.")
        click.echo(f"Use `pyswarm node ps {name}` to check progress.")
        raise
    if picture.outcome is Outcome.FAILED:
        click.echo(one_line(picture.message), err=True)
        raise Silent


def _follow(connection: Connection, node_id: str, screen: Screen) -> Picture:
    draining = Draining(Node(id=node_id))

    def watch(events: Events) -> Picture:
        _read(connection, draining)
        events.standing()
        return _until_over(connection, draining, events, screen)

    request = watch_pb2.WatchRequest(kinds=[watch_pb2.OBJECT_KIND_NODE, watch_pb2.OBJECT_KIND_TASK], node_ids=[node_id])
    try:
        return watched(connection, request, watch)
    except FromDaemon as error:
        if isinstance(error.refusal, errors.NotFound):
            return Picture("", (), "", Outcome.CONVERGED)  # it was removed, and its tasks with it
        raise


def _read(connection: Connection, draining: Draining) -> None:
    answer = call(connection.control.GetNode, control_pb2.GetNodeRequest(node=draining.node.id))
    tasks = all_tasks(connection, node_ids=[draining.node.id])
    draining.read(from_proto(Node, answer.node), [from_proto(Task, task) for task in tasks])


def _until_over(connection: Connection, draining: Draining, events: Events, screen: Screen) -> Picture:
    while True:
        picture = draining.look(time.time())
        screen.show(picture)
        if picture.outcome is not Outcome.GOING:
            return picture
        found = events.next(_LOOK_S)
        for event in found:
            _take(draining, event)
        if not found:
            draining.reasons = _reasons(connection, draining)


def _take(draining: Draining, event: Any) -> None:
    is_removed = event.action == watch_pb2.CHANGE_ACTION_REMOVE
    if event.HasField("task"):
        draining.take(from_proto(Task, event.task), is_removed=is_removed)
    elif event.HasField("node"):
        draining.is_removed = is_removed
        draining.node = from_proto(Node, event.node)


def _reasons(connection: Connection, draining: Draining) -> dict[str, str]:
    services = list(dict.fromkeys(task.service_id for task in draining.left()))[:_SERVICES]
    if not services:
        return {}
    tasks = (from_proto(Task, task) for task in all_tasks(connection, services))
    return reasons(task for task in tasks if task.node_id != draining.node.id)
