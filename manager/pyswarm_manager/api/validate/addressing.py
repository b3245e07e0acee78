"""Subnets, ranges, gateways and auxiliary addresses of a network, by themselves, in docker's words."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from pyswarm_common.model import NetworkSpec
from pyswarm_manager.api.validate.fields import Violation, check_count, shown

MAX_SUBNETS = 16
MAX_AUXILIARY = 1024
_MAX_OPTIONS = 64
_PREFIXES = {4: (8, 30), 6: (16, 126)}
"""Smallest and largest: there is room for the subnet's own address, a gateway and a task."""
_EXAMPLE = {4: "10.1.0.0/24", 6: "fd00:1::/64"}
_IPV6 = (ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("fc00::/7"))
"""What IPv6 networks can be made of: global and local addresses."""

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_subnet(text: str) -> IPNetwork | str:
    """The subnet, or the sentence that says why it is none."""
    if "/" not in text:
        return f"invalid subnet {shown(text)}: the prefix length is missing (like 10.1.0.0/24)"
    subnet = _network(text)
    if subnet is None:
        return f"invalid subnet {shown(text)}: it must be a network such as {_EXAMPLE[4]} or {_EXAMPLE[6]}"
    smallest, largest = _PREFIXES[subnet.version]
    if not smallest <= subnet.prefixlen <= largest:
        return f"invalid subnet {shown(text)}: the prefix length must be between {smallest} and {largest}"
    if not _is_usable(subnet):
        return f"invalid subnet {shown(text)}: it is reserved for another purpose"
    if text != str(subnet):
        return f"invalid subnet {shown(text)}: it should be {subnet}"
    return subnet


def check_addressing(spec: NetworkSpec) -> Iterator[Violation]:
    """All that a user says of a network's addresses."""
    yield from check_count(spec.subnets, MAX_SUBNETS, "subnets", "subnets")
    subnets: list[IPNetwork] = []
    for index, text in enumerate(spec.subnets[:MAX_SUBNETS]):
        subnet = parse_subnet(text)
        if isinstance(subnet, str):
            yield f"subnets[{index}]", subnet
            continue
        twin = next((other for other in subnets if _overlap(other, subnet)), None)
        if twin is not None:
            yield f"subnets[{index}]", f"subnets {twin} and {subnet} of the network overlap"
        subnets.append(subnet)
    if len(subnets) < len(spec.subnets):
        return  # what must be inside of them cannot be judged
    if len(spec.gateways) > len(subnets) or len(spec.ip_ranges) > len(subnets):
        yield "gateways", "every ip-range or gateway must have a corresponding subnet"
        return
    yield from _check_ranges(spec.ip_ranges, subnets)
    yield from _check_gateways(spec.gateways, subnets)
    yield from _check_auxiliary(spec, subnets)
    yield from check_count(tuple(spec.ipam_options), _MAX_OPTIONS, "ipam_options", "options of the IPAM driver")


def _check_ranges(ranges: Sequence[str], subnets: list[IPNetwork]) -> Iterator[Violation]:
    seen: dict[IPNetwork, str] = {}
    for index, text in enumerate(ranges):
        path = f"ip_ranges[{index}]"
        part = _network(text)
        if part is None:
            yield path, f"invalid ip-range {shown(text)}: it must be a network such as {_EXAMPLE[4]}"
            continue
        parent = next((subnet for subnet in subnets if _overlap(subnet, part)), None)
        if parent is None:
            yield path, f"no matching subnet for range {text}"
        elif part.prefixlen < parent.prefixlen:
            yield path, f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {parent}"
        elif text != str(part):
            yield path, f"invalid ip-range {text}: it should be {part}"
        elif parent in seen:
            yield path, f"cannot configure multiple ranges ({text}, {seen[parent]}) on the same subnet ({parent})"
        else:
            seen[parent] = text


def _check_gateways(gateways: Sequence[str], subnets: list[IPNetwork]) -> Iterator[Violation]:
    seen: dict[IPNetwork, str] = {}
    for index, text in enumerate(gateways):
        if not text:
            continue
        path = f"gateways[{index}]"
        address, parent = _placed(text, subnets)
        if address is None:
            yield path, f"invalid gateway {shown(text)}: it must be an address"
        elif parent is None:
            yield path, f"no matching subnet for gateway {text}"
        elif parent in seen:
            yield path, f"cannot configure multiple gateways ({text}, {seen[parent]}) for the same subnet ({parent})"
        else:
            seen[parent] = text


def _check_auxiliary(spec: NetworkSpec, subnets: list[IPNetwork]) -> Iterator[Violation]:
    yield from check_count(tuple(spec.auxiliary_addresses), MAX_AUXILIARY, "auxiliary_addresses", "auxiliary addresses")
    taken = {ipaddress.ip_address(text): "the gateway" for text in spec.gateways if _placed(text, subnets)[0]}
    for name, text in spec.auxiliary_addresses.items():
        address, parent = _placed(text, subnets)
        if not name or len(name) > MAX_AUXILIARY:
            yield "auxiliary_addresses", f"auxiliary address {shown(text)} needs a name (like router=10.1.0.2)"
        elif address is None:
            yield "auxiliary_addresses", f"invalid auxiliary address {shown(name)}: {shown(text)} is no address"
        elif parent is None:
            yield "auxiliary_addresses", f"no matching subnet for aux-address {text}"
        elif address in taken:
            yield "auxiliary_addresses", f"invalid auxiliary address {shown(name)}: {text} is {taken[address]}"
        else:
            taken[address] = f"that of {shown(name)} too"


def is_host_of(address: IPAddress, subnet: IPNetwork) -> bool:
    """Whether somebody in the subnet can have the address."""
    if address.version != subnet.version or address not in subnet or address == subnet.network_address:
        return False
    return address.version == 6 or address != subnet.broadcast_address


def _placed(text: str, subnets: list[IPNetwork]) -> tuple[IPAddress | None, IPNetwork | None]:
    """The address, and the subnet that it can be a host's in."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None, None
    return address, next((subnet for subnet in subnets if is_host_of(address, subnet)), None)


def _network(text: str) -> IPNetwork | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_usable(subnet: IPNetwork) -> bool:
    if isinstance(subnet, ipaddress.IPv6Network):
        return any(subnet.subnet_of(whole) for whole in _IPV6)
    return not (subnet.is_loopback or subnet.is_multicast or subnet.is_link_local or subnet.is_unspecified)


def _overlap(a: IPNetwork, b: IPNetwork) -> bool:
    return a.version == b.version and a.overlaps(b)
