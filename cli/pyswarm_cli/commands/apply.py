"""`pyswarm apply`: make the changes of a plan, if they would still do what it says."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import click

from pyswarm.v1 import control_pb2, types_pb2
from pyswarm.v1 import plans_pb2 as pb
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.params import detach_option
from pyswarm_cli.parse.plan_files import MAX_BYTES, parse_plan
from pyswarm_cli.views import plans as view


@click.command(
    help="Make the changes of a plan that --plan --out FILE wrote: all of them or, if the state of the swarm moved so "
    "that they would do anything else than planned, none."
)
@detach_option
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.argument("file", metavar="FILE")
@click.pass_context
def apply(ctx: click.Context, detach: bool, quiet: bool, file: str) -> None:
    """`apply`."""
    with Path(file).open("rb") as source:
        plan = parse_plan(source.read(MAX_BYTES + 1))
    connection = connect(ctx)
    applied = call(connection.plans.ApplyPlan, pb.ApplyPlanRequest(plan=plan))
    click.echo(f"applied at version {applied.index}: {view.summary(applied.forecast)}")
    if not detach:
        back = {change.service_id for change in _updates(plan) if change.rollback or change.rollback_to}
        _follow(connection, applied.services, back, quiet=quiet)


def _updates(plan: pb.Plan) -> Iterator[control_pb2.UpdateServiceRequest]:
    return (request.update_service for request in plan.requests if request.HasField("update_service"))


def _follow(connection: Connection, services: Any, going_back: Collection[str], *, quiet: bool) -> None:
    from pyswarm_cli.service.balance import wait_balanced  # noqa: PLC0415 - only who waits needs it
    from pyswarm_cli.service.follow import follow  # noqa: PLC0415

    for service in services:
        click.echo(service.spec.name)
        if service.rebalance_status.state == types_pb2.REBALANCE_STATE_RUNNING:
            wait_balanced(connection, [service], quiet=quiet)
        else:
            follow(connection, service, rollback=service.id in going_back, quiet=quiet)
