"""`pyswarm service create`."""

from __future__ import annotations

import os
import secrets
from typing import Any

import click
from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_cli.boolean_flags import DockerCommand
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import FromDaemon
from pyswarm_cli.params import detach_option
from pyswarm_cli.planning import Planning, plan_options
from pyswarm_cli.service import build
from pyswarm_cli.service.flags import CREATE_LISTS, SCALARS, declared
from pyswarm_cli.service.images import ServiceImages
from pyswarm_cli.service.names import random_name
from pyswarm_cli.service.options.modes import MODES
from pyswarm_cli.service.sources import warn_of_unknown_sources
from pyswarm_common import errors
from pyswarm_common.codec import to_proto
from pyswarm_common.model import ServiceSpec

_NAME_ATTEMPTS = 5


def _create(connection: Connection, spec: ServiceSpec) -> Any:
    return call(connection.control.CreateService, control_pb2.CreateServiceRequest(spec=to_proto(spec))).service


def _create_with_some_name(connection: Connection, spec: ServiceSpec) -> Any:
    """Find a name, and another one when it is taken."""
    for attempt in range(_NAME_ATTEMPTS):
        try:
            return _create(connection, replace(spec, name=random_name(secrets.choice)))
        except FromDaemon as error:
            if not isinstance(error.refusal, errors.AlreadyExists) or attempt == _NAME_ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _plan(connection: Connection, planning: Planning, spec: ServiceSpec) -> None:
    from pyswarm.v1 import plans_pb2  # noqa: PLC0415 - only who plans needs it

    named = spec if spec.name else replace(spec, name=random_name(secrets.choice))
    request = control_pb2.CreateServiceRequest(spec=to_proto(named))
    planning.show(connection, [plans_pb2.PlannedRequest(create_service=request)])


@click.command(
    cls=DockerCommand,
    help="Create a new service.",
    # What follows the image is the container's command line, also where it looks like our flags.
    context_settings={"allow_interspersed_args": False},
)
@click.option("--name", help="Service name")
@click.option("--mode", type=click.Choice(MODES), default="replicated", show_default=True, help="Service mode")
@declared([*SCALARS, *CREATE_LISTS])
@plan_options
@detach_option
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.argument("image")
@click.argument("command", metavar="[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def create(
    ctx: click.Context,
    /,
    image: str,
    command: tuple[str, ...],
    detach: bool,
    quiet: bool,
    planning: Planning,
    **options: Any,
) -> None:
    """`service create`."""
    spec = build.create(image, command, options, os.environ)
    connection = connect(ctx)
    spec = ServiceImages(connection, options).prepared(spec, is_new_image=True)
    if planning:
        _plan(connection, planning, spec)
        return
    service = _create(connection, spec) if spec.name else _create_with_some_name(connection, spec)
    click.echo(service.id)
    warn_of_unknown_sources(connection, spec)
    if not detach:
        from pyswarm_cli.service.follow import follow  # noqa: PLC0415 - only who waits needs it

        follow(connection, service, quiet=quiet)
