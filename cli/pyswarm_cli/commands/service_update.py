"""`pyswarm service update | scale | rollback`: relative changes, repeated when somebody else was faster."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

import click
from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_cli.boolean_flags import DockerCommand
from pyswarm_cli.commands.service import get_service
from pyswarm_cli.connection import Connection, call, connect
from pyswarm_cli.failures import each
from pyswarm_cli.listing import network_names
from pyswarm_cli.overtaken import until_first
from pyswarm_cli.params import detach_option
from pyswarm_cli.planning import Planning, plan_options
from pyswarm_cli.service import build
from pyswarm_cli.service.flags import SCALARS, UPDATE_LISTS, declared
from pyswarm_cli.service.images import ServiceImages
from pyswarm_cli.service.sources import warn_of_unknown_sources
from pyswarm_common import errors
from pyswarm_common.codec import from_proto, to_proto
from pyswarm_common.model import JobSpec, ServiceMode, ServiceSpec

_REPLICAS = re.compile(r"\d{1,18}")
Change = Callable[[ServiceSpec], ServiceSpec]


def change_service(connection: Connection, name: str, change: Change) -> Any:
    """Change the spec. Returns the service as written."""

    return _write(connection, lambda: change_request(connection, name, change))


def change_request(connection: Connection, name: str, change: Change) -> control_pb2.UpdateServiceRequest:
    """The change of the spec as it is now."""
    service = get_service(connection, name)
    spec = change(from_proto(ServiceSpec, service.spec))
    return control_pb2.UpdateServiceRequest(service_id=service.id, version=service.meta.version, spec=to_proto(spec))


def _write(connection: Connection, request: Callable[[], control_pb2.UpdateServiceRequest]) -> Any:
    return until_first(lambda: call(connection.control.UpdateService, request()).service)


def roll_back(connection: Connection, name: str, number: int = 0) -> Any:
    """Go back to the previous spec, or to that of the revision. Returns the service as written."""

    return _write(connection, lambda: _back_request(connection, name, number))


def _back_request(connection: Connection, name: str, number: int) -> control_pb2.UpdateServiceRequest:
    service = get_service(connection, name)
    return control_pb2.UpdateServiceRequest(
        service_id=service.id, version=service.meta.version, rollback=not number, rollback_to=number
    )


def plan_updates(
    connection: Connection, planning: Planning, requests: Iterable[control_pb2.UpdateServiceRequest]
) -> None:
    """Show what they would do."""
    from pyswarm.v1 import plans_pb2  # noqa: PLC0415 - only who plans needs it

    planning.show(connection, [plans_pb2.PlannedRequest(update_service=request) for request in requests])


def wait_for(connection: Connection, service: Any, detach: bool, quiet: bool, *, rollback: bool = False) -> None:
    """Show how it goes until it is done, unless the user wants to go on at once."""
    if not detach:
        from pyswarm_cli.service.follow import follow  # noqa: PLC0415 - only who waits needs it

        follow(connection, service, rollback=rollback, quiet=quiet)


@click.command(cls=DockerCommand, help="Change a service.")
@click.option("--image", help="Image of the service")
@click.option("--args", help="Arguments of the service's command, as one string")
@click.option("--force", is_flag=True, help="Replace the tasks even if nothing else changes")
@click.option("--rollback", "rollback_", is_flag=True, help="Go back to the previous configuration")
@declared([*SCALARS, *UPDATE_LISTS])
@plan_options
@detach_option
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.argument("service")
@click.pass_context
def update(
    ctx: click.Context,
    /,
    service: str,
    rollback_: bool,
    detach: bool,
    quiet: bool,
    planning: Planning,
    **options: Any,
) -> None:
    """`service update`."""
    connection = connect(ctx)
    request = _update_request(connection, service, rollback_, options)
    if planning:
        plan_updates(connection, planning, [request()])
        return
    changed = _write(connection, request)
    click.echo(service)
    if options["allow_from"] or options["allow_from_add"]:
        warn_of_unknown_sources(connection, from_proto(ServiceSpec, changed.spec))
    wait_for(connection, changed, detach, quiet, rollback=rollback_)


def _update_request(
    connection: Connection, name: str, rollback_: bool, options: dict[str, Any]
) -> Callable[[], control_pb2.UpdateServiceRequest]:
    """What makes the request, each time from the spec as it is then."""
    if rollback_:
        _refuse_other_flags(options)
        return lambda: _back_request(connection, name, 0)
    ids = _network_ids(connection, options)
    images = ServiceImages(connection, options)

    def change(spec: ServiceSpec) -> ServiceSpec:
        changed = build.change(spec, options, os.environ, ids)
        return images.prepared(changed, is_new_image=options["image"] is not None)

    return lambda: change_request(connection, name, change)


def _refuse_other_flags(options: dict[str, Any]) -> None:
    given = sorted(name for name, value in options.items() if value not in (None, (), False))
    if given:
        raise click.UsageError(f"other flags may not be combined with --rollback: --{given[0].replace('_', '-')}")


def _network_ids(connection: Connection, options: dict[str, Any]) -> dict[str, str]:
    """Ids of the networks that flags name: a service's spec holds ids."""
    if not options["network_rm"] and not options["network_add"]:
        return {}
    known = {name: identifier for identifier, name in network_names(connection).items()}
    for name in options["network_rm"]:
        if name not in known and name not in known.values():
            raise errors.NotFound(f"network {name} not found")
    return known


@click.command(help="Go back to a service's previous configuration, or to any one in its history.")
@click.option("--to", "number", metavar="REVISION", type=click.IntRange(min=1), help="As in `service history`")
@plan_options
@detach_option
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.argument("service")
@click.pass_context
def rollback(
    ctx: click.Context, number: int | None, detach: bool, quiet: bool, service: str, planning: Planning
) -> None:
    """`service rollback`."""
    connection = connect(ctx)
    if planning:
        plan_updates(connection, planning, [_back_request(connection, service, number or 0)])
        return
    changed = roll_back(connection, service, number or 0)
    click.echo(service)
    wait_for(connection, changed, detach, quiet, rollback=True)


@click.command(help="Set the number of replicas of services: `pyswarm service scale web=5 api=3`.")
@plan_options
@detach_option
@click.argument("targets", metavar="SERVICE=REPLICAS...", nargs=-1, required=True)
@click.pass_context
def scale(ctx: click.Context, detach: bool, targets: tuple[str, ...], planning: Planning) -> None:
    """`service scale`."""
    wanted = dict(_target(text) for text in targets)
    connection = connect(ctx)
    if planning:
        plan_updates(connection, planning, [_scale_request(connection, *target) for target in wanted.items()])
        return
    scaled = []

    def act(name: str) -> None:
        replicas = wanted[name]
        scaled.append(change_service(connection, name, lambda spec: _scaled(spec, replicas)))
        click.echo(f"{name} scaled to {replicas}")

    try:
        each(wanted, act)
    finally:
        for service in scaled:
            wait_for(connection, service, detach, False)


def _scale_request(connection: Connection, name: str, replicas: int) -> control_pb2.UpdateServiceRequest:
    return change_request(connection, name, lambda spec: _scaled(spec, replicas))


def _target(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not name or not equals:
        raise errors.InvalidArgument(f'invalid scale specifier "{text}": write SERVICE=REPLICAS')
    if not _REPLICAS.fullmatch(count):
        raise errors.InvalidArgument(f'{name}: invalid replicas value "{count}": it must be a number, 0 or more')
    return name, int(count)


def _scaled(spec: ServiceSpec, replicas: int) -> ServiceSpec:
    if spec.autoscale is not None:
        raise errors.InvalidArgument(
            f"{spec.name}: scale cannot be used with an autoscaled service: change its --autoscale, or turn it off"
        )
    if spec.mode is ServiceMode.REPLICATED_JOB:
        job = spec.job or JobSpec()
        return replace(spec, job=replace(job, total_completions=replicas))
    if spec.mode is not ServiceMode.REPLICATED:
        raise errors.InvalidArgument(f"{spec.name}: scale can only be used with replicated or replicated-job mode")
    return replace(spec, replicas=replicas)
