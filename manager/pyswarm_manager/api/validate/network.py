"""What a network may be, by itself. Whether its subnet is free is decided where the network is made."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from pyswarm_common.model import NetworkSpec
from pyswarm_manager.api.validate.fields import Violation, check_count, check_labels, check_name, shown
from pyswarm_manager.store.tables import HOST_NETWORK

OVERLAY = "overlay"
PREDEFINED = frozenset({"bridge", HOST_NETWORK, "none"})
"""Networks that every host has of its own."""
MAX_SUBNETS = 16
_MAX_PREFIX = 30  # a network address, a gateway, one task and a broadcast address
_MIN_PREFIX = 8

IPNetwork = ipaddress.IPv4Network


def check_network_spec(spec: NetworkSpec) -> Iterator[Violation]:
    yield from check_name(spec.name)
    yield from check_labels(spec.labels)
    if spec.driver not in ("", OVERLAY):
        yield "driver", f"unknown network driver {shown(spec.driver)}: networks of the cluster use overlay"
    yield from _check_addresses(spec)
    for key in spec.options:
        yield "options", f"network option {shown(key)} is not supported"


def parse_subnet(text: str) -> IPNetwork | str:
    """The subnet, or the sentence that says why it is none."""
    if "/" not in text:
        return f"invalid subnet {shown(text)}: the prefix length is missing (like 10.1.0.0/24)"
    try:
        subnet = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return f"invalid subnet {shown(text)}: it must be an IPv4 network such as 10.1.0.0/24"
    if not _MIN_PREFIX <= subnet.prefixlen <= _MAX_PREFIX:
        return f"invalid subnet {shown(text)}: the prefix length must be between {_MIN_PREFIX} and {_MAX_PREFIX}"
    if subnet.is_loopback or subnet.is_multicast or subnet.is_link_local or subnet.is_unspecified:
        return f"invalid subnet {shown(text)}: it is reserved for another purpose"
    if text != str(subnet):
        return f"invalid subnet {shown(text)}: it should be {subnet}"
    return subnet


def _check_addresses(spec: NetworkSpec) -> Iterator[Violation]:
    yield from check_count(spec.subnets, MAX_SUBNETS, "subnets", "subnets")
    subnets: list[IPNetwork] = []
    for index, text in enumerate(spec.subnets[:MAX_SUBNETS]):
        subnet = parse_subnet(text)
        if isinstance(subnet, str):
            yield f"subnets[{index}]", subnet
            continue
        twin = next((other for other in subnets if other.overlaps(subnet)), None)
        if twin is not None:
            yield f"subnets[{index}]", f"subnets {twin} and {subnet} of the network overlap"
        subnets.append(subnet)
    if len(spec.gateways) > len(spec.subnets):
        yield "gateways", "every gateway must have a corresponding subnet"
        return
    for index, text in enumerate(spec.gateways[:MAX_SUBNETS]):
        if text and not _is_host_of(text, spec.subnets[index]):
            yield f"gateways[{index}]", f"no matching subnet for gateway {shown(text)}"


def _is_host_of(gateway: str, subnet: str) -> bool:
    network = parse_subnet(subnet)
    try:
        address = ipaddress.IPv4Address(gateway)
    except ValueError:
        return False
    if isinstance(network, str):
        return True  # already reported
    return address in network and address not in (network.network_address, network.broadcast_address)
