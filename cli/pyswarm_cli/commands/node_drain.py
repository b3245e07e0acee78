"""`pyswarm node drain`: take nodes out of use, task by task, and wait for it if asked."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.commands.node import change_node, plan_changes
from pyswarm_cli.connection import Connection, connect
from pyswarm_cli.failures import each
from pyswarm_cli.params import DURATION
from pyswarm_cli.planning import Planning, plan_options
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Availability


def set_drain(spec: Any, deadline_s: float | None) -> None:
    """Drain, with this deadline; without one the drain waits as long as it takes."""
    spec.availability = Availability.DRAIN.value
    spec.drain_deadline_s = deadline_s or 0.0


def check_flags(availability: str | None, deadline_s: float | None, *, wait: bool) -> None:
    """A deadline and waiting are for drains only."""
    if availability != "drain" and (deadline_s is not None or wait):
        raise InvalidArgument("--deadline and --wait go with --availability drain")
    if deadline_s is not None and deadline_s <= 0.0:
        raise InvalidArgument("--deadline must be more than 0: without it, a drain waits as long as it takes")


def wait(connection: Connection, node: Any) -> None:
    """Until the node is empty."""
    from pyswarm_cli.draining import wait_empty  # noqa: PLC0415 - only who waits needs it

    wait_empty(connection, node)


@click.command(
    help="Move the tasks of nodes elsewhere, within the limits of each service's updates; the nodes get no more tasks "
    "until `pyswarm node update --availability active`."
)
@click.option("--deadline", type=DURATION, help="What has not moved after so long is stopped at once (ms|s|m|h)")
@click.option("--wait", "waits", is_flag=True, help="Wait until nothing runs there any more, and show how it goes")
@plan_options
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.pass_context
def drain(ctx: click.Context, deadline: float | None, waits: bool, nodes: tuple[str, ...], planning: Planning) -> None:
    """`node drain`."""
    check_flags("drain", deadline, wait=waits)
    connection = connect(ctx)
    if planning:
        plan_changes(connection, planning, nodes, lambda spec: set_drain(spec, deadline))
        return
    drained = []

    def act(name: str) -> None:
        drained.append(change_node(connection, name, lambda spec: set_drain(spec, deadline)))
        click.echo(name)

    each(nodes, act)
    for node in drained if waits else ():
        wait(connection, node)
