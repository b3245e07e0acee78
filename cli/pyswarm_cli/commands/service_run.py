"""`pyswarm service run | runs`: another run of a job, and the runs there were."""

from __future__ import annotations

import time

import click

from pyswarm.v1 import jobs_pb2
from pyswarm_cli.commands.service import get_service
from pyswarm_cli.connection import call, connect
from pyswarm_cli.output.rows import show
from pyswarm_cli.params import detach_option, format_option, quiet_option
from pyswarm_cli.views import modes
from pyswarm_common.codec import from_proto
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Service


@click.command(help="Run a job again, or a cron service now, besides its schedule.")
@detach_option
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.argument("service")
@click.pass_context
def run(ctx: click.Context, detach: bool, quiet: bool, service: str) -> None:
    """`service run`."""
    connection = connect(ctx)
    begun = call(connection.jobs.RunService, jobs_pb2.RunServiceRequest(service=service))
    click.echo(f"{begun.service.spec.name}: run {begun.iteration}")
    if not detach:
        from pyswarm_cli.service.follow import follow  # noqa: PLC0415 - only who waits needs it

        follow(connection, begun.service, quiet=quiet, run=begun.iteration)


@click.command(help="List the runs of a job or a cron service, the latest first.")
@format_option
@quiet_option
@click.argument("service")
@click.pass_context
def runs(ctx: click.Context, format_: str, quiet: bool, service: str) -> None:
    """`service runs`."""
    found = from_proto(Service, get_service(connect(ctx), service))
    if not found.spec.mode.is_job:
        raise InvalidArgument(f"service {found.spec.name} is no job: only jobs and cron services have runs")
    click.echo(show(modes.runs(found, time.time()), modes.RUN_COLUMNS, format_, quiet=quiet), nl=False)
