"""`pyswarm service create`."""

from __future__ import annotations

import os
from typing import Any

import click

from pyswarm.v1 import control_pb2
from pyswarm_cli.connection import call, connect
from pyswarm_cli.params import detach_option
from pyswarm_cli.service import build
from pyswarm_cli.service.flags import CREATE_LISTS, SCALARS, declared
from pyswarm_common.codec import to_proto


@click.command(
    help="Create a new service.",
    # What follows the image is the container's command line, also where it looks like our flags.
    context_settings={"allow_interspersed_args": False},
)
@click.option("--name", help="Service name")
@click.option("--mode", type=click.Choice(["replicated", "global"]), default="replicated", show_default=True)
@declared([*SCALARS, *CREATE_LISTS])
@detach_option
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.argument("image")
@click.argument("command", metavar="[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def create(
    ctx: click.Context, /, image: str, command: tuple[str, ...], detach: bool, quiet: bool, **options: Any
) -> None:
    """`service create`."""
    spec = build.create(image, command, options, os.environ)
    connection = connect(ctx)
    request = control_pb2.CreateServiceRequest(spec=to_proto(spec))
    service = call(connection.control.CreateService, request).service
    click.echo(service.id)
    if not detach:
        from pyswarm_cli.service.follow import follow  # noqa: PLC0415 - only who waits needs it

        follow(connection, service, quiet=quiet)
