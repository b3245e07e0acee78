"""`pyswarm service ls | ps | inspect | rm`: what reads, or only removes."""

from __future__ import annotations

from typing import Any

import click

from pyswarm.v1 import control_pb2
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import FromDaemon, Silent, each, report
from pyswarm_cli.listing import all_networks, all_services
from pyswarm_cli.output.rows import show, show_objects
from pyswarm_cli.params import filter_option, filters, format_option, no_trunc_option, quiet_option
from pyswarm_cli.planning import Planning, plan_options
from pyswarm_cli.views import services as service_view
from pyswarm_common.model import ServiceMode


def get_service(connection: Connection, name: str) -> Any:
    """One service by id, name or id prefix."""
    return call(connection.control.GetService, control_pb2.GetServiceRequest(service=name)).service


@click.command(help="List services.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.pass_context
def list_services(ctx: click.Context, filter_: tuple[str, ...], format_: str, quiet: bool, no_trunc: bool) -> None:
    """`service ls`."""
    wanted = filters(filter_, ("id", "name", "label", "mode"))
    modes = [mode.lower() for mode in wanted.get("mode", [])]
    found = [
        service_view.row(service, counts, no_trunc=no_trunc)
        for service, counts in sorted(all_services(connect(ctx), wanted), key=lambda pair: pair[0].spec.name)
        if not modes or ServiceMode(service.spec.mode).name.lower().replace("_", "-") in modes
    ]
    click.echo(show(found, service_view.COLUMNS, format_, quiet=quiet), nl=False)


@click.command(help="List the tasks of services.")
@filter_option
@format_option
@quiet_option
@no_trunc_option
@click.option("--no-resolve", is_flag=True, help="Ids instead of names")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
@click.pass_context
def tasks(
    ctx: click.Context,
    filter_: tuple[str, ...],
    format_: str,
    quiet: bool,
    no_trunc: bool,
    no_resolve: bool,
    services: tuple[str, ...],
) -> None:
    """`service ps`."""
    from pyswarm_cli.task_list import show_tasks  # noqa: PLC0415 - `service ls` does not need it

    connection = connect(ctx)
    ids, failed = [], False
    for name in services:
        try:
            ids.append(get_service(connection, name).id)
        except FromDaemon as error:
            failed = bool(report(error))
    if ids:
        show_tasks(connection, tuple(ids), [], filter_, format_, quiet=quiet, no_trunc=no_trunc, no_resolve=no_resolve)
    if failed:
        raise Silent


@click.command(help="Show everything about services.")
@click.option("-f", "--format", "format_", metavar="FORMAT", default="", help="A Go-style template")
@click.option("--pretty", is_flag=True, help="In words, for people")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
@click.pass_context
def inspect(ctx: click.Context, format_: str, pretty: bool, services: tuple[str, ...]) -> None:
    """`service inspect`."""
    # The model and its codec are only needed here.
    from pyswarm_cli.views import inspected, service_pretty  # noqa: PLC0415
    from pyswarm_common.codec import from_proto  # noqa: PLC0415
    from pyswarm_common.model import Service  # noqa: PLC0415

    if pretty and format_:
        raise click.UsageError("--format is incompatible with human friendly format")
    connection = connect(ctx)
    found = [inspected.service(from_proto(Service, get_service(connection, name))) for name in services]
    if pretty:
        names = {network.id: network.spec.name for network in all_networks(connection)}
        click.echo("".join(service_pretty.pretty(service, names) for service in found), nl=False)
    else:
        click.echo(show_objects(found, format_), nl=False)


@click.command(help="Remove services.")
@plan_options
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
@click.pass_context
def remove(ctx: click.Context, services: tuple[str, ...], planning: Planning) -> None:
    """`service rm`."""
    connection = connect(ctx)
    if planning:
        from pyswarm.v1 import plans_pb2  # noqa: PLC0415 - only who plans needs it

        requests = [control_pb2.RemoveServiceRequest(service=name) for name in services]
        planning.show(connection, [plans_pb2.PlannedRequest(remove_service=request) for request in requests])
        return

    def act(name: str) -> None:
        call(connection.control.RemoveService, control_pb2.RemoveServiceRequest(service=name))
        click.echo(name)

    each(services, act)
