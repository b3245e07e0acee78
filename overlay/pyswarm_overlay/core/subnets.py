"""Which subnet the sandboxes' ways out get: the preferred one, or the first that nobody on this host routes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network

_IPV6_ALTERNATIVES = 64
_ALTERNATIVES = (
    *(f"172.{second}.0.0/16" for second in range(18, 32)),
    *(f"192.168.{third}.0/20" for third in range(0, 256, 16)),
)


def choose(preferred: str, routes: Iterable[str]) -> str | None:
    """None when every candidate overlaps a route. Single addresses do not count: our own ways out are such."""
    taken = [network for network in map(ip_network, routes) if network.prefixlen < network.max_prefixlen]
    for candidate in (preferred, *_ALTERNATIVES):
        if not any(IPv4Network(candidate).overlaps(network) for network in taken if network.version == 4):
            return candidate
    return None


def choose_ipv6(preferred: str, routes: Iterable[str]) -> str | None:
    """Likewise; the alternatives differ at the end of the prefix. None, too, when none is wanted (`""`)."""
    if not preferred:
        return None
    taken = [network for network in map(ip_network, routes) if network.prefixlen < network.max_prefixlen]
    first = IPv6Network(preferred)
    for step in range(_IPV6_ALTERNATIVES):
        candidate = IPv6Network((int(first.network_address) + (step << 128 - first.prefixlen), first.prefixlen))
        if not any(candidate.overlaps(network) for network in taken if network.version == 6):
            return str(candidate)
    return None


def reaches_ipv6(addresses: Iterable[str], ours: str | None) -> bool:
    """Whether one of a host's addresses (with prefix lengths) is of IPv6, for others to reach, and not one of ours."""
    own = None if ours is None else IPv6Network(ours)
    found = (IPv6Interface(address).ip for address in addresses if ":" in address)
    return any(
        not (address.is_loopback or address.is_link_local or (own is not None and address in own)) for address in found
    )


@lru_cache(maxsize=4096)
def twin(address: str, subnet6: str | None) -> str | None:
    """The IPv6 address of who has that IPv4 address (with prefix length): the same place in the other subnet."""
    if subnet6 is None:
        return None
    interface, network = IPv4Interface(address), IPv6Network(subnet6)
    offset = int(interface.ip) - int(interface.network.network_address)
    return f"{network[offset]}/{network.prefixlen}"
