"""Which subnet the sandboxes' ways out get: the preferred one, or the first that nobody on this host routes."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network

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
