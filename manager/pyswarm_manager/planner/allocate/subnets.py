"""Subnets and VNIs of networks: which are free, and what is in the way of one that a user asks for.

Chosen subnets keep clear of other networks and of what nodes route themselves. A route that covers a whole pool (the
10.0.0.0/8 of a company's network) leaves nothing to choose from in it: such a pool is used all the same when no other
has room, since containers reach what is more specific first. `check_subnets` is also what the API uses to refuse a
network before it is written.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping

from pyswarm_common.errors import Exhausted, FailedPrecondition, InvalidArgument
from pyswarm_common.model import ClusterSpec, Network, NetworkSpec, Node
from pyswarm_common.network_options import overlay_options
from pyswarm_manager.store.network_claims import Block, block, check_apart, is_overlay, subnets_of

FIRST_VNI = 4097
INGRESS_VNI = 4096
LAST_VNI = (1 << 24) - 1
IPV6_SUBNET_SIZE = 64
WAYS_OUT = "172.18.0.0/16"
"""Where every container's way out of the cluster is, on most nodes: a network there would be in its way."""

_IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_subnet(text: str) -> _IPNetwork:
    """A CIDR with no host bits set, large enough for a gateway and a task. Raises InvalidArgument."""
    try:
        subnet = ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from error
    if subnet.num_addresses < 4:
        raise InvalidArgument(f"invalid subnet {text}: too small, use /{subnet.max_prefixlen - 2} or larger")
    return subnet


def check_subnets(spec: NetworkSpec, networks: Iterable[Network], nodes: Iterable[Node] = ()) -> None:
    """Whether the spec's subnets and gateways can be had beside the existing networks and the nodes' own routes.

    Raises InvalidArgument for what is malformed and AlreadyExists or FailedPrecondition for what is in the way.
    """
    wanted = [parse_subnet(text) for text in spec.subnets]
    for position, subnet in enumerate(wanted):
        if any(_overlap(subnet, other) for other in wanted[:position]):
            raise InvalidArgument(f"invalid subnet {subnet}: it overlaps another subnet of the same network")
    _check_gateways(spec, wanted)
    vni = overlay_options(spec.options).vni
    for network in networks:
        if is_overlay(network.spec):
            check_apart(spec.subnets, vni, network)
    _check_routes(spec.subnets, nodes)


def _check_routes(subnets: Iterable[str], nodes: Iterable[Node]) -> None:
    for node in nodes:
        for subnet, route in collisions(subnets, node):
            name = node.description.hostname or node.id
            raise FailedPrecondition(
                f"subnet {subnet} overlaps {route}, which node {name} routes itself: choose another subnet"
            )


def collisions(subnets: Iterable[str], node: Node) -> Iterator[tuple[str, str]]:
    """(subnet, route): what the node itself sends elsewhere."""
    for subnet in subnets:
        for route in node.description.routed_subnets:
            if block(subnet).touches(block(route)):
                yield subnet, route


def free_subnet(
    cluster: ClusterSpec,
    networks: Iterable[Network],
    routes: Iterable[str] = (),
    *,
    version: int = 4,
    cluster_id: str = "",
) -> str:
    """The first subnet of the cluster's pools that overlaps no network and no node's route. Raises Exhausted."""
    used = [block(text) for network in networks for text in subnets_of(network)]
    avoided = [block(text) for text in (*routes, WAYS_OUT)]
    size = subnet_size(cluster, version)
    pools = pools_of(cluster, cluster_id, version)
    for is_last_resort in (False, True):
        for pool_text in pools:
            pool = block(pool_text)
            around = [*used, *(route for route in avoided if not (is_last_resort and route.covers(pool)))]
            found = _first_gap(pool, max(size, ipaddress.ip_network(pool_text).prefixlen), around)
            if found:
                return found
    also = ", and none that no node routes itself" if len(avoided) > 1 else ""
    raise Exhausted(f"no free /{size} subnet left in the pools ({', '.join(pools)}){also}: give the network a subnet")


def subnet_size(cluster: ClusterSpec, version: int) -> int:
    return cluster.subnet_size if version == 4 else IPV6_SUBNET_SIZE


def pools_of(cluster: ClusterSpec, cluster_id: str, version: int) -> tuple[str, ...]:
    """The pools of a family. A cluster that has none of IPv6 has the one that its id says."""
    pools = tuple(text for text in cluster.default_address_pools if block(text).version == version)
    return pools or ((ula_pool(cluster_id),) if version == 6 else ())


def ula_pool(cluster_id: str) -> str:
    """A /48 of the local IPv6 addresses, as good as only this cluster's."""
    chosen = hashlib.blake2b(cluster_id.encode(), digest_size=5).digest()
    address = ipaddress.IPv6Address(b"\xfd" + chosen + bytes(10))
    return f"{address}/48"


def families_of(spec: NetworkSpec) -> tuple[int, ...]:
    """The families of addresses that the network has: those of its subnets, or IPv4; and IPv6 where it is asked for."""
    given = {block(text).version for text in spec.subnets} or {4}
    return tuple(sorted({*given, 4, 6} if spec.ipv6 else given))


def free_vni(used: Mapping[int, str], after: int = FIRST_VNI) -> int:
    """The first VNI from `after` on that no network has. Raises Exhausted."""
    for vni in range(after, LAST_VNI + 1):
        if vni not in used:
            return vni
    raise Exhausted("no free VXLAN network identifier left: remove a network")


def gateways_of(spec: NetworkSpec, subnets: Iterable[str]) -> tuple[str, ...]:
    """One for each subnet: the user's, or the first address that has no name already."""
    named = {ipaddress.ip_address(text) for text in spec.auxiliary_addresses.values()}
    return tuple(_gateway_of(subnet, spec.gateways, named) for subnet in subnets)


def _gateway_of(subnet: str, given: Iterable[str], named: Collection[_IPAddress]) -> str:
    network = ipaddress.ip_network(subnet)
    for text in given:
        if text and ipaddress.ip_address(text) in network:
            return text
    return next(str(network[index]) for index in range(1, len(named) + 2) if network[index] not in named)


def _check_gateways(spec: NetworkSpec, subnets: list[_IPNetwork]) -> None:
    for text in spec.gateways:
        if not text:
            continue
        try:
            gateway = ipaddress.ip_address(text)
        except ValueError as error:
            raise InvalidArgument(f"invalid gateway {text}: {error}") from error
        if not any(gateway in subnet for subnet in subnets):
            raise InvalidArgument(f"invalid gateway {text}: it is in none of the network's subnets")


def _overlap(a: _IPNetwork, b: _IPNetwork) -> bool:
    return a.version == b.version and a.overlaps(b)


def _first_gap(pool: Block, prefix_length: int, used: Iterable[Block]) -> str:
    """Walks the used ranges in order of address; a candidate moves behind each range that it touches."""
    size = 1 << ((32 if pool.version == 4 else 128) - prefix_length)
    taken = sorted((other.low, other.high) for other in used if other.version == pool.version)
    candidate = pool.low
    for low, high in taken:
        if low >= candidate + size:
            break
        if high >= candidate:
            candidate = (high // size + 1) * size
    if candidate + size - 1 > pool.high:
        return ""
    address = ipaddress.IPv4Address(candidate) if pool.version == 4 else ipaddress.IPv6Address(candidate)
    return f"{address}/{prefix_length}"
