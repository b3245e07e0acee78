"""`pyswarm node drain`: take nodes out of use, task by task, and wait for it if asked."""

from __future__ import annotations

import click

from pyswarm_cli.connection import connect
from pyswarm_cli.failures import each
from pyswarm_cli.nodes import change_node, check_drain_flags, plan_changes, set_drain, wait_empty
from pyswarm_cli.params import DURATION
from pyswarm_cli.planning import Planning, plan_options


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
    check_drain_flags("drain", deadline, wait=waits)
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
        wait_empty(connection, node)
