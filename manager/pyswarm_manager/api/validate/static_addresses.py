"""Static addresses that a service asks for, by themselves. Whether they are the network's and free: `api.addresses`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from pyswarm_common.model import EndpointMode, NetworkAttachmentSpec, ServiceMode, ServiceSpec
from pyswarm_manager.api.validate.fields import Violation, check_count, under
from pyswarm_manager.store.static_addresses import MAX_ADDRESSES, Span, spans, text_of
from pyswarm_manager.store.tables import NODE_NETWORKS


def check_static_addresses(spec: ServiceSpec) -> Iterator[Violation]:
    """Of all networks of the service."""
    for index, attachment in enumerate(spec.task.networks):
        if attachment.virtual_addresses or attachment.addresses:
            yield from under(f"task.networks[{index}]", _check_attachment(spec, attachment))


def _check_attachment(spec: ServiceSpec, attachment: NetworkAttachmentSpec) -> Iterator[Violation]:
    if attachment.target in NODE_NETWORKS:
        yield "addresses", "conflicting options: a static address and the host network, which has the host's own"
        return
    yield from check_count(attachment.addresses, MAX_ADDRESSES, "addresses", "addresses")
    try:
        virtual, own = spans(attachment.virtual_addresses), spans(attachment.addresses[:MAX_ADDRESSES])
    except ValueError as error:
        yield "addresses", str(error)
        return
    yield from _check_virtual(spec, virtual)
    if own and spec.mode in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB):
        yield "addresses", "addresses of tasks go with replicated services: tasks of a global one have no number"
    if sum(span.size for span in own) > MAX_ADDRESSES:
        yield "addresses", f"a service can have at most {MAX_ADDRESSES} static addresses on a network"
        return
    yield from _check_twice((*virtual, *own))


def _check_virtual(spec: ServiceSpec, virtual: tuple[Span, ...]) -> Iterator[Violation]:
    if not virtual:
        return
    if spec.endpoint.mode is not EndpointMode.VIP:
        yield "virtual_addresses", "conflicting options: a virtual address and endpoint mode dnsrr, which has none"
    families = [span.version for span in virtual]
    if len(families) != len(set(families)) or any(span.size > 1 for span in virtual):
        yield "virtual_addresses", "a service has one virtual address of each family on a network"


def _check_twice(wanted: tuple[Span, ...]) -> Iterator[Violation]:
    ordered = sorted(wanted)
    for span, following in pairwise(ordered):
        number = span.overlap(following)
        if number is not None:
            yield "addresses", f"address {text_of(span.version, number)} is given twice"
