"""Route-netlink messages that put single settings right: what verification needs beyond building. Messages only."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network

from pyswarm_overlay.core import comparison, facts
from pyswarm_overlay.core.facts import NeighbourFacts, Observed, RouteFacts

from . import rtnl
from .netlink import NLM_F_CREATE, NLM_F_REPLACE, Message, Netlink, attr, u32

_RTM_GETLINK, _RTM_SETLINK, _RTM_GETADDR = 18, 19, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_DELNEIGH, _RTM_GETNEIGH = 29, 30
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_MASTER = 1, 4, 10
_IFF_UP, _IFF_NOARP = 1, 0x80
_NTF_SELF, _NTF_MASTER = 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_PROTOCOL_KERNEL, _SCOPE_LINK, _SCOPE_HOST, _UNICAST, _LOCAL = 2, 253, 254, 1, 2


def observe(netlink: Netlink, *, neighbours: bool = True, forwarding: bool = False) -> Observed:
    """Read one namespace. Blocking."""
    found = [] if not neighbours else netlink.dump(_ask("neighbours", _RTM_GETNEIGH, facts.NDMSG.pack(0, 0, 0, 0, 0)))
    if forwarding:
        found += netlink.dump(_ask("forwarding entries", _RTM_GETNEIGH, facts.IFINFO.pack(facts.AF_BRIDGE, 0, 0, 0, 0)))
    return Observed(
        links=facts.links(netlink.dump(_ask("links", _RTM_GETLINK, facts.IFINFO.pack(0, 0, 0, 0, 0)))),
        addresses=facts.addresses(netlink.dump(_ask("addresses", _RTM_GETADDR, facts.IFADDR.pack(0, 0, 0, 0, 0)))),
        routes=facts.routes(netlink.dump(_ask("routes", _RTM_GETROUTE, facts.RTMSG.pack(*[0] * 9)))),
        neighbours=facts.neighbours(found),
    )


def _ask(what: str, kind: int, body: bytes) -> Message:
    return Message(f"list {what}", kind, 0, body)


def set_link(index: int, mtu: int, mac: str | None = None, *, master: int | None = None) -> Message:
    """Up, with ARP, with this MTU, MAC and master (0: of nobody)."""
    body = facts.IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP | _IFF_NOARP) + u32(_IFLA_MTU, mtu)
    if mac is not None:
        body += attr(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    if master is not None:
        body += u32(_IFLA_MASTER, master)
    return Message(f"settings of link {index}", _RTM_SETLINK, 0, body)


def delete_entry(entry: NeighbourFacts) -> Message:
    """A neighbour, or a forwarding entry of a bridge or of a tunnel."""
    if entry.address:
        packed = ip_address(entry.address).packed
        family = facts.AF_INET if len(packed) == 4 else facts.AF_INET6
        body = facts.NDMSG.pack(family, entry.index, 0, 0, 0) + attr(1, packed)
    else:
        flags = _NTF_SELF if entry.of_device else _NTF_MASTER
        body = facts.NDMSG.pack(facts.AF_BRIDGE, entry.index, 0, flags, 0)
        body += attr(2, bytes.fromhex(entry.mac.replace(":", "")))
        if entry.vlan:
            body += attr(5, struct.pack("=H", entry.vlan))
    return Message(f"forget {entry.address or entry.mac}", _RTM_DELNEIGH, 0, body, (errno.ENOENT, errno.EOPNOTSUPP))


def own_routes(addresses: Iterable[str], index: int, found: Observed) -> list[Message]:
    """Routes that came with addresses and are gone. An IPv6 address is taken away with them, for whoever gives it
    again: only the kernel makes such routes as they were."""
    present = {entry.address for entry in found.addresses if entry.index == index}
    routes = {comparison.bare(route) for route in found.routes}
    messages: list[Message] = []
    for address in addresses:
        missing = [route for route in comparison.routes_of(address, index) if route not in routes]
        if address not in present or not missing:
            continue
        if ":" in address:
            messages.append(rtnl.delete_address(index, address))
        else:
            source = str(ip_interface(address).ip)
            messages += [_own_route(route, source) for route in missing]
    return messages


def _own_route(route: RouteFacts, source: str) -> Message:
    """To oneself (table local) or to one's subnet."""
    local = route.table == facts.LOCAL_TABLE
    destination = ip_network(route.destination)
    scope, kind = (_SCOPE_HOST, _LOCAL) if local else (_SCOPE_LINK, _UNICAST)
    body = _route_head(destination.prefixlen, route.table, scope, kind, destination.version)
    body += attr(_RTA_DST, destination.network_address.packed) + u32(_RTA_OIF, route.index)
    body += attr(_RTA_PREFSRC, ip_address(source).packed)
    return Message(f"route {route.destination}", _RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, (errno.EEXIST,))


def delete_route(route: RouteFacts) -> Message:
    destination = ip_network(route.destination)
    scope_nowhere = 255
    body = _route_head(destination.prefixlen, route.table, scope_nowhere, route.kind, destination.version)
    body += attr(_RTA_DST, destination.network_address.packed)
    if route.index:
        body += u32(_RTA_OIF, route.index)
    if route.gateway:
        body += attr(_RTA_GATEWAY, ip_address(route.gateway).packed)
    if route.metric:
        body += u32(_RTA_PRIORITY, route.metric)
    return Message(f"remove route {route.destination}", _RTM_DELROUTE, 0, body, (errno.ESRCH, errno.ENOENT))


def _route_head(length: int, table: int, scope: int, kind: int, version: int) -> bytes:
    family = facts.AF_INET if version == 4 else facts.AF_INET6
    protocol = _PROTOCOL_KERNEL if scope != 255 else 0
    return facts.RTMSG.pack(family, length, 0, 0, table, protocol, scope, kind, 0)
