"""`pyswarm task why`, `pyswarm service why` and `pyswarm service rebalance`: where tasks are, and moving them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from pyswarm.v1 import scheduling_pb2 as pb
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.output.rows import show_objects
from pyswarm_cli.params import detach_option, format_option, quiet_option
from pyswarm_cli.planning import Planning, plan_options
from pyswarm_cli.views import why as view
from pyswarm_common.errors import InvalidArgument

_limit = click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Nodes to show")


@click.command(help="Explain why a task waits, or why it is on its node.")
@format_option
@_limit
@click.argument("task")
@click.pass_context
def task_why(ctx: click.Context, format_: str, limit: int, task: str) -> None:
    """`task why`."""
    answer = call(connect(ctx).scheduling.ExplainTask, pb.ExplainTaskRequest(task=task, limit=limit))
    if format_:
        click.echo(show_objects([view.task_json(answer)], format_), nl=False)
    else:
        click.echo(view.task_text(answer), nl=False)


@click.command(help="Explain what of a service waits or fails, and why.")
@format_option
@_limit
@click.argument("service")
@click.pass_context
def service_why(ctx: click.Context, format_: str, limit: int, service: str) -> None:
    """`service why`."""
    answer = call(connect(ctx).scheduling.ExplainService, pb.ExplainServiceRequest(service=service, limit=limit))
    if format_:
        click.echo(show_objects([view.service_json(answer)], format_), nl=False)
    else:
        click.echo(view.service_text(answer), nl=False)


def _plan(connection: Connection, planning: Planning, services: Sequence[str]) -> None:
    from pyswarm.v1 import plans_pb2  # noqa: PLC0415 - only who plans needs it

    planning.show(connection, [plans_pb2.PlannedRequest(rebalance=pb.RebalanceRequest(services=services))])


@click.command(help="Move tasks of services, a few at a time, until they are spread evenly.")
@click.option("--all", "all_", is_flag=True, help="Of all replicated services")
@plan_options
@detach_option
@quiet_option
@click.argument("services", nargs=-1)
@click.pass_context
def rebalance(
    ctx: click.Context, all_: bool, detach: bool, quiet: bool, services: tuple[str, ...], planning: Planning
) -> None:
    """`service rebalance`."""
    if all_ == bool(services):
        raise InvalidArgument("name services to rebalance, or give --all")
    connection = connect(ctx)
    planned = call(connection.scheduling.PlanRebalance, pb.PlanRebalanceRequest(services=services))
    uneven = tuple(dict.fromkeys(move.service_id for move in planned.moves))
    if planning:
        _plan(connection, planning, uneven or services)
        return
    if not uneven:
        click.echo("nothing to move: the tasks are spread evenly")
        return
    begun = call(connection.scheduling.Rebalance, pb.RebalanceRequest(services=uneven))
    for service in begun.services:
        click.echo(service.spec.name)
    if not detach:
        from pyswarm_cli.service.balance import wait_balanced  # noqa: PLC0415 - only who waits needs it

        wait_balanced(connection, begun.services, quiet=quiet)
