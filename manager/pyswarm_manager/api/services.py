"""Writes of services, on the leader.

Decides what of a spec depends on other objects: networks that exist and may be joined, ports that are free, what may
change in an update. What must hold whatever else happens meanwhile (names, ports, versions) the store's apply checks
once more. The planner acts next: it makes the tasks.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.errors import AlreadyExists, InvalidArgument
from pyswarm_common.model import (
    PortConfig,
    PublishMode,
    Service,
    ServiceSpec,
)
from pyswarm_manager.api.addresses import check_addresses
from pyswarm_manager.api.revisions import resumed, rolled_back, rolled_back_to
from pyswarm_manager.api.shown import with_kept_credentials
from pyswarm_manager.api.validate import check_service_spec, decode, refuse
from pyswarm_manager.files.versions import resolved
from pyswarm_manager.planner.orchestrate.jobs import begin_if_forced
from pyswarm_manager.store.changes import Create, Update, delete
from pyswarm_manager.store.lookup import find_network, find_service
from pyswarm_manager.store.tables import NODE_NETWORKS, Tables
from pyswarm_manager.writes import Writer, check_read_version, retried

_PUBLISHED_AS = {PublishMode.INGRESS: "an ingress", PublishMode.HOST: "a host-published"}


async def create_service(writer: Writer, request: control_pb2.CreateServiceRequest) -> Service:
    spec = decode(ServiceSpec, request.spec)
    refuse(check_service_spec(spec))
    spec = resolved(writer.store.view, resolve_networks(writer.store.view, spec))
    check_addresses(writer.store.view, spec, own_id="")
    _check_ports(writer.store.view, spec, own_id="")
    service = Service(id=writer.ids(), spec=spec)
    await writer.store.propose([Create(service)])
    return writer.store.view.services.get(service.id, service)


async def update_service(writer: Writer, request: control_pb2.UpdateServiceRequest) -> Service:
    goes_back = request.rollback or bool(request.rollback_to)
    spec = None if goes_back else decode(ServiceSpec, request.spec)
    if spec is not None:
        refuse(check_service_spec(spec))

    async def attempt() -> Service:
        view = writer.store.view
        service = find_service(view, request.service_id)
        # What the planner writes (endpoint, update status) moves the version too, and contradicts no user.
        check_read_version("service", service.id, service.spec_version, request.version, service.meta.version)
        if spec is not None:
            changed = _respecified(view, service, spec, writer.clock())
        elif request.rollback_to:
            changed = rolled_back_to(view, service, request.rollback_to, writer.clock())
        else:
            changed = rolled_back(service, writer.clock())
        changed = begin_if_forced(service, changed, writer.clock())
        if changed.spec.task.networks != service.spec.task.networks:
            check_addresses(view, changed.spec, own_id=service.id)
        _check_ports(view, changed.spec, own_id=service.id)
        await writer.store.propose([Update(changed)])
        return writer.store.view.services.get(service.id, changed)

    return await retried(attempt)


async def remove_service(writer: Writer, request: control_pb2.RemoveServiceRequest) -> str:
    async def attempt() -> str:
        service = find_service(writer.store.view, request.service)
        await writer.store.propose([delete(service)])
        return service.id

    return await retried(attempt)


def resolve_networks(view: Tables, spec: ServiceSpec) -> ServiceSpec:
    """The spec with network ids in place of names. NotFound, or InvalidArgument with every network that is wrong."""
    if any(attachment.target in NODE_NETWORKS for attachment in spec.task.networks):
        return spec  # it stands for itself, and alone
    found = [find_network(view, attachment.target) for attachment in spec.task.networks]
    violations, seen = [], set()
    for index, network in enumerate(found):
        path = f"task.networks[{index}].target"
        if network.spec.ingress:
            name = network.spec.name
            violations.append((path, f'service cannot be explicitly attached to the ingress network "{name}"'))
        if network.id in seen:
            violations.append((path, f"network {network.spec.name} is attached twice"))
        seen.add(network.id)
    refuse(violations)
    attachments = tuple(
        replace(attachment, target=network.id) for network, attachment in zip(found, spec.task.networks, strict=True)
    )
    return replace(spec, task=replace(spec.task, networks=attachments))


def _check_ports(view: Tables, spec: ServiceSpec, own_id: str) -> None:
    """An ingress port is taken on every node, a host port on some: only two host ports of one number can coexist."""
    wanted = {(port.protocol, port.published_port): port for port in spec.endpoint.ports if port.published_port}
    if not wanted:
        return
    for other, taken in _ports_of_others(view, own_id):
        port = wanted.get((taken.protocol, taken.published_port))
        if port is None or port.publish_mode is taken.publish_mode is PublishMode.HOST:
            continue
        raise AlreadyExists(
            f"port '{taken.published_port}' is already in use by service '{other.spec.name}' ({other.id}) "
            f"as {_PUBLISHED_AS[taken.publish_mode]} port"
        )


def _ports_of_others(view: Tables, own_id: str) -> Iterator[tuple[Service, PortConfig]]:
    for other in view.services.values():
        if other.id == own_id:
            continue
        for port in (*other.spec.endpoint.ports, *other.endpoint.ports):
            if port.published_port:
                yield other, port


def _respecified(view: Tables, service: Service, spec: ServiceSpec, now: float) -> Service:
    _check_what_may_change(service, spec)
    spec = with_kept_credentials(resolved(view, resolve_networks(view, spec)), service.spec)
    return resumed(service, now) if spec == service.spec else replace(service, spec=spec)


def _check_what_may_change(service: Service, spec: ServiceSpec) -> None:
    violations = []
    if spec.name != service.spec.name:
        violations.append(("name", "renaming services is not supported"))
    if spec.mode is not service.spec.mode:
        violations.append(("mode", "service mode change is not allowed"))
    if violations:
        raise InvalidArgument("; ".join(sentence for _, sentence in violations), violations)
