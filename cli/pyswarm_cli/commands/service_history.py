"""`pyswarm service history | diff`: the specs that a service had."""

from __future__ import annotations

import time
from typing import Any

import click

from pyswarm.v1 import control_pb2
from pyswarm_cli.commands.service import get_service
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.listing import network_names
from pyswarm_cli.output.rows import show
from pyswarm_cli.params import format_option, no_trunc_option, quiet_option
from pyswarm_cli.views import revisions as view
from pyswarm_common import errors
from pyswarm_common.codec import from_proto
from pyswarm_common.model import ServiceRevision


def get_revisions(connection: Connection, service: str) -> list[ServiceRevision]:
    """Oldest first; the last one is the present spec."""
    request = control_pb2.ListServiceRevisionsRequest(service=service)
    found = call(connection.control.ListServiceRevisions, request).revisions
    return [from_proto(ServiceRevision, revision) for revision in found]


@click.command(help="List the specs that a service had: when each was written, by whom, and what it changed.")
@format_option
@quiet_option
@no_trunc_option
@click.argument("service")
@click.pass_context
def history(ctx: click.Context, format_: str, quiet: bool, no_trunc: bool, service: str) -> None:
    """`service history`."""
    connection = connect(ctx)
    found = get_revisions(connection, service)
    rows = view.rows(found, network_names(connection), time.time(), no_trunc=no_trunc)
    click.echo(show(rows, view.COLUMNS, format_, quiet=quiet), nl=False)


@click.command(help="Show what differs between a revision of a service and another one, by default the present one.")
@click.argument("service")
@click.argument("revision", type=click.IntRange(min=1))
@click.argument("other", metavar="[REVISION]", type=click.IntRange(min=1), required=False)
@click.pass_context
def diff(ctx: click.Context, service: str, revision: int, other: int | None) -> None:
    """`service diff`."""
    connection = connect(ctx)
    found = {item.number: item for item in get_revisions(connection, service)}
    name = str(get_service(connection, service).spec.name)
    old, new = _pick(name, found, revision), _pick(name, found, other or max(found, default=0))
    for line in view.unified(name, old, new, network_names(connection)):
        click.echo(line)


def _pick(name: str, found: dict[int, Any], number: int) -> ServiceRevision:
    if number not in found:
        kept = f"{min(found)} to {max(found)} are kept" if found else "none is kept"
        raise errors.NotFound(f"service {name} has no revision {number}: {kept}")
    revision: ServiceRevision = found[number]
    return revision
