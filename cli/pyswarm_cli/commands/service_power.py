"""`pyswarm service stop | start`: no tasks for a while, with the number of replicas kept."""

from __future__ import annotations

from typing import Any

import click
from msgspec.structs import replace

from pyswarm_cli.commands.service_update import change_service, wait_for
from pyswarm_cli.connection import connect
from pyswarm_cli.failures import each
from pyswarm_cli.params import detach_option


@click.command(help="Stop services: their tasks end, their specification stays.")
@detach_option
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
@click.pass_context
def stop(ctx: click.Context, detach: bool, quiet: bool, services: tuple[str, ...]) -> None:
    """`service stop`."""
    _set_stopped(ctx, services, True, detach, quiet)


@click.command(help="Start services that were stopped, with as many tasks as before.")
@detach_option
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
@click.pass_context
def start(ctx: click.Context, detach: bool, quiet: bool, services: tuple[str, ...]) -> None:
    """`service start`."""
    _set_stopped(ctx, services, False, detach, quiet)


def _set_stopped(ctx: click.Context, names: tuple[str, ...], stopped: bool, detach: bool, quiet: bool) -> None:
    connection = connect(ctx)
    changed: list[Any] = []

    def act(name: str) -> None:
        changed.append(change_service(connection, name, lambda spec: replace(spec, stopped=stopped)))
        click.echo(name)

    try:
        each(names, act)
    finally:
        for service in changed:
            wait_for(connection, service, detach, quiet)
