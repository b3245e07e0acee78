"""Subnets and VNIs of networks: which are free, and whether what a user asks for fits.

`check_subnets` is also what the API uses to refuse a network before it is written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from pyswarm_common.errors import AlreadyExists, Exhausted, InvalidArgument
from pyswarm_common.model import ClusterSpec, Network, NetworkSpec

FIRST_VNI = 4097
INGRESS_VNI = 4096
LAST_VNI = (1 << 24) - 1

_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_overlay(spec: NetworkSpec) -> bool:
    """Whether the network spans nodes, so that the cluster gives out its addresses."""
    return spec.driver in ("", "overlay")


def parse_subnet(text: str) -> _IPNetwork:
    """A CIDR with no host bits set, large enough for a gateway and a task. Raises InvalidArgument."""
    try:
        subnet = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from error
    if subnet.num_addresses < 4:
        raise InvalidArgument(f"invalid subnet {text}: too small, use /{subnet.max_prefixlen - 2} or larger")
    return subnet


def check_subnets(spec: NetworkSpec, networks: Iterable[Network]) -> None:
    """Whether the spec's subnets and gateways can be had beside the existing networks.

    Raises InvalidArgument for what is malformed and AlreadyExists for an overlap, naming the network in the way.
    """
    wanted = [parse_subnet(text) for text in spec.subnets]
    for position, subnet in enumerate(wanted):
        if any(_overlap(subnet, other) for other in wanted[:position]):
            raise InvalidArgument(f"invalid subnet {subnet}: it overlaps another subnet of the same network")
    _check_gateways(spec, wanted)
    for network in networks:
        for text in network.subnets or network.spec.subnets:
            for subnet in wanted:
                if _overlap(subnet, ipaddress.ip_network(text)):
                    raise AlreadyExists(
                        f"subnet {subnet} overlaps {text} of network {network.spec.name}: choose another subnet"
                    )


def free_subnet(cluster: ClusterSpec, networks: Iterable[Network]) -> str:
    """The first subnet of the cluster's pools that overlaps no network. Raises Exhausted."""
    used = [ipaddress.ip_network(text) for network in networks for text in network.subnets or network.spec.subnets]
    for pool_text in cluster.default_address_pools:
        pool = ipaddress.ip_network(pool_text)
        found = _first_gap(pool, max(cluster.subnet_size, pool.prefixlen), used)
        if found:
            return found
    pools = ", ".join(cluster.default_address_pools)
    raise Exhausted(f"no free /{cluster.subnet_size} subnet left in the pools ({pools}): give the network a subnet")


def free_vni(used: dict[int, str], after: int = FIRST_VNI) -> int:
    """The first VNI from `after` on that no network has. Raises Exhausted."""
    for vni in range(after, LAST_VNI + 1):
        if vni not in used:
            return vni
    raise Exhausted("no free VXLAN network identifier left: remove a network")


def default_gateway(subnet: str) -> str:
    """The first address of the subnet."""
    return str(ipaddress.ip_network(subnet)[1])


def _check_gateways(spec: NetworkSpec, subnets: list[_IPNetwork]) -> None:
    for text in spec.gateways:
        try:
            gateway = ipaddress.ip_address(text)
        except ValueError as error:
            raise InvalidArgument(f"invalid gateway {text}: {error}") from error
        if not any(gateway in subnet for subnet in subnets):
            raise InvalidArgument(f"invalid gateway {text}: it is in none of the network's subnets")


def _overlap(a: _IPNetwork, b: _IPNetwork) -> bool:
    return a.version == b.version and a.overlaps(b)


def _first_gap(pool: _IPNetwork, prefix_length: int, used: list[_IPNetwork]) -> str:
    """Walks the used ranges in order of address; a candidate moves behind each range that it touches."""
    size = 1 << (pool.max_prefixlen - prefix_length)
    taken = sorted(
        (int(other.network_address), int(other.broadcast_address)) for other in used if other.version == pool.version
    )
    candidate = int(pool.network_address)
    for low, high in taken:
        if low >= candidate + size:
            break
        if high >= candidate:
            candidate = (high // size + 1) * size
    if candidate + size - 1 > int(pool.broadcast_address):
        return ""
    address = ipaddress.IPv4Address(candidate) if pool.version == 4 else ipaddress.IPv6Address(candidate)
    return f"{address}/{prefix_length}"
