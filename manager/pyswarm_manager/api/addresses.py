"""Whether a service can have the static addresses it asks for: they are its networks', and nobody else's. Pure.

What two services ask for at the same time the store's apply decides once more. An address that a task or another
service got meanwhile is never given twice: the one who asked for it waits, and says for what.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from pyswarm_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from pyswarm_common.model import Network, NetworkAttachmentSpec, Service, ServiceSpec, Task
from pyswarm_manager.api.validate.addressing import is_host_of
from pyswarm_manager.store.network_claims import is_overlay
from pyswarm_manager.store.static_addresses import Span, address_of_slot, all_spans, known_spans, text_of
from pyswarm_manager.store.tables import Tables


def check_addresses(view: Tables, spec: ServiceSpec, own_id: str) -> None:
    """Refuse static addresses that cannot be had. The networks of the spec are resolved."""
    for attachment in spec.task.networks:
        network = view.networks.get(attachment.target)  # apply refuses what is gone
        if network is not None and (wanted := all_spans(attachment)):
            _check_inside(network, wanted)
            for span, number, holder in _taken(view, attachment, wanted, own_id):
                address = text_of(span.version, number)
                raise AlreadyExists(f"address {address} of network {network.spec.name} is in use by {holder}")


def _check_inside(network: Network, wanted: tuple[Span, ...]) -> None:
    name = network.spec.name
    if not is_overlay(network.spec):
        raise InvalidArgument(f"network {name} has no addresses of the swarm's to choose from: use an overlay network")
    subnets = network.subnets or network.spec.subnets
    if not subnets:
        raise FailedPrecondition(f"network {name} has no subnet yet: try again in a moment")
    for span in wanted:
        for number in {span.low, span.high}:
            address = ip_address(text_of(span.version, number))
            if not any(is_host_of(address, ip_network(subnet)) for subnet in subnets):
                raise InvalidArgument(f"address {address} is no host's in network {name} ({', '.join(subnets)})")
    names = {**dict.fromkeys(network.gateways, "its gateway"), **_auxiliary(network)}
    for text, what in names.items():
        for single in known_spans((text,)):
            if any(single.overlap(span) is not None for span in wanted):
                raise InvalidArgument(f"address {text} of network {name} is {what}")


def _auxiliary(network: Network) -> dict[str, str]:
    return {text: f"its auxiliary address {name}" for name, text in network.spec.auxiliary_addresses.items()}


def _taken(
    view: Tables, attachment: NetworkAttachmentSpec, wanted: tuple[Span, ...], own_id: str
) -> Iterator[tuple[Span, int, str]]:
    """What others have of it, and who they are."""
    for service in view.services.values():
        if service.id != own_id:
            for span in _of_service(service, attachment.target):
                yield from _hits(wanted, span, f"service {service.spec.name}")
    for task in view.tasks.values():
        if not task.status.state.is_terminal:
            for span in _of_task(task, attachment, is_own=task.service_id == own_id):
                kind = "task" if task.service_id else "container"
                yield from _hits(wanted, span, f"{kind} {task.name}")


def _hits(wanted: tuple[Span, ...], held: Span, holder: str) -> Iterator[tuple[Span, int, str]]:
    for span in wanted:
        number = span.overlap(held)
        if number is not None:
            yield span, number, holder


def _of_service(service: Service, network_id: str) -> Iterator[Span]:
    for attachment in service.spec.task.networks:
        if attachment.target == network_id:
            yield from all_spans(attachment)
    for vip in service.endpoint.vips:
        if vip.network_id == network_id:
            yield from known_spans((vip.address.partition("/")[0],))


def _of_task(task: Task, attachment: NetworkAttachmentSpec, *, is_own: bool) -> Iterator[Span]:
    """What the task holds on the network; of the service's own tasks what is not to be their slot's."""
    for item in task.networks:
        if item.network_id != attachment.target:
            continue
        for span in known_spans(tuple(text.partition("/")[0] for text in item.addresses)):
            if not is_own or address_of_slot(attachment, span.version, task.slot) != span.low:
                yield span
