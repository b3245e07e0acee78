"""Nodes, as several commands read and change them: one by its name, a change of its spec, a drain.

A change is made on what is there, and again where somebody else was faster (`overtaken`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyswarm.v1 import control_pb2
from pyswarm_cli.connection import Connection, call
from pyswarm_cli.overtaken import until_first
from pyswarm_cli.planning import Planning
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Availability


def get_node(connection: Connection, name: str) -> Any:
    """One node by id, host name, id prefix or "self"."""
    return answer_about(connection, name).node


def answer_about(connection: Connection, name: str) -> Any:
    """The node, and what is reserved and free there."""
    reference = connection.own_node if name == "self" else name
    return call(connection.control.GetNode, control_pb2.GetNodeRequest(node=reference))


def change_node(connection: Connection, name: str, change: Callable[[Any], None], *, force: bool = False) -> Any:
    """Change the spec. Returns the node as it was read."""

    def attempt() -> Any:
        node, request = _change_request(connection, name, change)
        if request.spec != node.spec:
            request.force = force
            call(connection.control.UpdateNode, request)
        return node

    return until_first(attempt)


def _change_request(
    connection: Connection, name: str, change: Callable[[Any], None]
) -> tuple[Any, control_pb2.UpdateNodeRequest]:
    """The node as it is, and what changes it."""
    node = get_node(connection, name)
    request = control_pb2.UpdateNodeRequest(node_id=node.id, version=node.meta.version, spec=node.spec)
    change(request.spec)
    return node, request


def plan_changes(
    connection: Connection, planning: Planning, names: Iterable[str], change: Callable[[Any], None]
) -> None:
    """Show what the change of each of the nodes would do."""
    from pyswarm.v1 import plans_pb2  # noqa: PLC0415 - only who plans needs it

    requests = [_change_request(connection, name, change)[1] for name in names]
    planning.show(connection, [plans_pb2.PlannedRequest(update_node=request) for request in requests])


def set_drain(spec: Any, deadline_s: float | None) -> None:
    """Drain, with this deadline; without one the drain waits as long as it takes."""
    spec.availability = Availability.DRAIN.value
    spec.drain_deadline_s = deadline_s or 0.0


def check_drain_flags(availability: str | None, deadline_s: float | None, *, wait: bool) -> None:
    """A deadline and waiting are for drains only."""
    if availability != "drain" and (deadline_s is not None or wait):
        raise InvalidArgument("--deadline and --wait go with --availability drain")
    if deadline_s is not None and deadline_s <= 0.0:
        raise InvalidArgument("--deadline must be more than 0: without it, a drain waits as long as it takes")


def wait_empty(connection: Connection, node: Any) -> None:
    """Until nothing runs on the node any more, and show how it goes."""
    from pyswarm_cli.draining import wait_empty as wait  # noqa: PLC0415 - only who waits needs it

    wait(connection, node)
