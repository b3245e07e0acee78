"""Wanted against observed, one sentence for each difference: the devices of a network, the interfaces of a sandbox,
this host's own ends. Pure; whoever asks decides what to do about it.

A sentence names the thing and what is wrong with it, never more than one thing, so that the same damage seen twice
makes the same sentence twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

from .facts import LOCAL_TABLE, MAIN_TABLE, AddressFacts, LinkFacts, Observed, RouteFacts
from .names import VXLAN
from .plan import WantedInterface

_UNICAST, _LOCAL = 1, 2
_TAKEN_AWAY = ("veth", "bridge", "vxlan", "macvlan")
"""Of what somebody made in a network's namespace; some kinds the kernel puts into every one."""


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """The inside of a network's namespace."""

    mtu: int
    tunnel: tuple[int, str, int, bool, bool]
    forwarding: Mapping[str, str]
    neighbours: Mapping[str, str]


def network_problems(wanted: WantedNetwork, observed: Observed) -> list[str]:
    vxlan = observed.links.get(VXLAN)
    if vxlan is None:
        return [f"device {VXLAN} is missing"]
    problems = _settings(vxlan, wanted.mtu, None)
    if vxlan.tunnel != wanted.tunnel:
        problems.append(f"device {VXLAN} is another tunnel than wanted")
    if vxlan.master:
        problems.append(f"device {VXLAN} is on a bridge")
    problems += [f"device {name} is a stray" for name in strays(observed.links)]
    return problems + _tunnel_entries(wanted, observed, vxlan.index)


def strays(links: Mapping[str, LinkFacts]) -> list[str]:
    """The interfaces on the tunnel are in other namespaces."""
    return [link.name for link in links.values() if link.kind in _TAKEN_AWAY and link.name != VXLAN]


def _settings(link: LinkFacts, mtu: int, mac: str | None) -> list[str]:
    wrong = [] if link.up else ["is down"]
    if not link.arp:
        wrong.append("does no ARP")
    if link.mtu != mtu:
        wrong.append(f"has MTU {link.mtu} in place of {mtu}")
    if mac is not None and link.mac != mac:
        wrong.append(f"has MAC {link.mac} in place of {mac}")
    return [f"device {link.name} {problem}" for problem in wrong]


def _tunnel_entries(wanted: WantedNetwork, observed: Observed, vxlan: int) -> list[str]:
    forwarding: dict[str, str] = {}
    neighbours: dict[str, str] = {}
    for entry in observed.neighbours:
        if entry.index != vxlan:
            continue
        if entry.of_device and (entry.remote or entry.odd):
            forwarding[entry.mac] = "elsewhere" if entry.odd else entry.remote
        elif entry.address and entry.permanent:
            neighbours[entry.address] = entry.mac
    return _map_problems("forwarding entry", wanted.forwarding, forwarding) + _map_problems(
        "neighbour", wanted.neighbours, neighbours
    )


def _map_problems(what: str, wanted: Mapping[str, str], observed: Mapping[str, str]) -> list[str]:
    problems = [
        f"{what} {key} leads to {observed[key]} in place of {value}" if key in observed else f"{what} {key} is missing"
        for key, value in wanted.items()
        if observed.get(key) != value
    ]
    return problems + [f"{what} {key} is a stray" for key in observed if key not in wanted]


def sandbox_problems(interfaces: Sequence[WantedInterface], observed: Observed) -> list[str]:
    problems: list[str] = []
    if not observed.links["lo"].up:
        problems.append("device lo is down")
    for interface in interfaces:
        link = observed.links.get(interface.name)
        if link is None:
            problems.append(f"device {interface.name} is missing")
            continue
        problems += _settings(link, interface.mtu, interface.mac)
        problems += _addresses(interface, link, observed.addresses)
        problems += [
            f"device {interface.name} has a fixed neighbour {entry.address}"
            for entry in observed.neighbours
            if entry.index == link.index and entry.permanent and entry.address
        ]
    return problems + _routes(interfaces, observed)


def _addresses(interface: WantedInterface, link: LinkFacts, addresses: Sequence[AddressFacts]) -> list[str]:
    found = {entry.address for entry in addresses if entry.index == link.index}
    missing = [f"{address} is missing on {link.name}" for address in interface.addresses if address not in found]
    return missing + [
        f"{address} is a stray on {link.name}" for address in sorted(found.difference(interface.addresses))
    ]


def wanted_routes(interfaces: Iterable[WantedInterface], index_of: Mapping[str, int]) -> set[RouteFacts]:
    """That must be there: to oneself and to one's subnets. Metrics are left out (IPv6 has them, IPv4 has not)."""
    wanted: set[RouteFacts] = set()
    for interface in interfaces:
        index = index_of.get(interface.name)
        if index is None:
            continue
        for address in interface.addresses:
            wanted.update(routes_of(address, index))
    return wanted


def routes_of(address: str, index: int) -> list[RouteFacts]:
    """Those that come with an address."""
    parsed = ip_interface(address)
    routes = [RouteFacts(LOCAL_TABLE, str(ip_network(parsed.ip)), "", index, _LOCAL, 0)]
    if parsed.network.prefixlen < parsed.max_prefixlen:
        routes.append(RouteFacts(MAIN_TABLE, str(parsed.network), "", index, _UNICAST, 0))
    return routes


def wrong_routes(interfaces: Sequence[WantedInterface], observed: Observed) -> list[RouteFacts]:
    """Routes of the main table that lead packets for our subnets, or out of our interfaces, another way than wanted.

    What a container does on interfaces of its own (a tunnel, say) is left alone.
    """
    named = {interface.name for interface in interfaces}
    index_of = {name: link.index for name, link in observed.links.items() if name in named}
    wanted = wanted_routes(interfaces, index_of)
    ours = set(index_of.values())
    subnets = [ip_interface(address).network for interface in interfaces for address in interface.addresses]
    gateways = {gateway for interface in interfaces for gateway in interface.gateways}
    wrong = []
    for route in observed.routes:
        if route.table != MAIN_TABLE or bare(route) in wanted:
            continue
        destination = ip_network(route.destination)
        if destination.prefixlen == 0:
            foreign = route.index not in ours and route.kind == _UNICAST
            if not foreign and not (route.gateway in gateways and route.kind == _UNICAST):
                wrong.append(route)
        elif any(_within(destination, subnet) for subnet in subnets):
            wrong.append(route)
    return wrong


def _within(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.subnet_of(other)
    return isinstance(other, IPv6Network) and one.subnet_of(other)


def bare(route: RouteFacts) -> RouteFacts:
    """Without its metric."""
    return RouteFacts(route.table, route.destination, route.gateway, route.index, route.kind, 0)


def _routes(interfaces: Sequence[WantedInterface], observed: Observed) -> list[str]:
    index_of = {name: link.index for name, link in observed.links.items()}
    found = {bare(route) for route in observed.routes}
    problems = [
        f"route {route.destination} is missing"
        for route in sorted(wanted_routes(interfaces, index_of) - found, key=lambda route: route.destination)
    ]
    defaults = {(route.gateway, route.index) for route in observed.routes if route.destination.endswith("/0")}
    for interface in interfaces:
        problems += [
            f"the default route through {gateway} is missing"
            for gateway in interface.gateways
            if (gateway, index_of.get(interface.name)) not in defaults
        ]
    return problems + [f"route {route.destination} is a stray" for route in wrong_routes(interfaces, observed)]


@dataclass(frozen=True, slots=True)
class WantedEnd:
    """The host's end of a sandbox's way out. `peers`: the sandbox's addresses behind it, `mac` its hardware address:
    of its IPv6 address there is a fixed neighbour."""

    sandbox_id: str
    port: str
    mtu: int
    peers: tuple[str, ...]
    mac: str


def end_problems(wanted: WantedEnd, observed: Observed) -> list[str]:
    link = observed.links.get(wanted.port)
    if link is None:
        return [f"device {wanted.port} is missing"]
    problems = _settings(link, wanted.mtu, None)
    if not link.localnet:
        problems.append(f"device {wanted.port} takes no loopback addresses")
    fixed = {(one.address, one.mac) for one in observed.neighbours if one.index == link.index and one.permanent}
    problems += [
        f"neighbour {peer} on {wanted.port} is missing"
        for peer in wanted.peers
        if ":" in peer and (peer, wanted.mac) not in fixed
    ]
    return problems + [f"the way to {peer} through {wanted.port} is missing" for peer in lost_ways(wanted, observed)]


def lost_ways(wanted: WantedEnd, observed: Observed) -> list[str]:
    """Addresses of the sandbox to which no route leads through its own port."""
    link = observed.links.get(wanted.port)
    index = 0 if link is None else link.index
    routed = {route.destination for route in observed.routes if route.index == index and route.table == MAIN_TABLE}
    return [peer for peer in wanted.peers if str(ip_network(peer)) not in routed]


@dataclass(frozen=True, slots=True)
class WantedDevice:
    """This host's own end on the ingress network."""

    name: str
    mtu: int
    mac: str
    addresses: tuple[str, ...]


def device_problems(wanted: WantedDevice, observed: Observed) -> list[str]:
    link = observed.links.get(wanted.name)
    if link is None:
        return [f"device {wanted.name} is missing"]
    problems = _settings(link, wanted.mtu, wanted.mac)
    if not link.localnet:
        problems.append(f"device {wanted.name} takes no loopback addresses")
    found = {entry.address for entry in observed.addresses if entry.index == link.index}
    problems += [f"{address} is missing on {wanted.name}" for address in wanted.addresses if address not in found]
    problems += [f"{address} is a stray on {wanted.name}" for address in sorted(found.difference(wanted.addresses))]
    present = {bare(route) for route in observed.routes}
    wanted_here = [route for address in wanted.addresses for route in routes_of(address, link.index)]
    return problems + [f"route {route.destination} is missing" for route in wanted_here if route not in present]
