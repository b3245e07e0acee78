"""What the routing of a namespace says: the way to one address, and which networks have routes. Changes nothing."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pyswarm_overlay.core.attributes import attributes

from .netlink import Message, Netlink, attr
from .rtnl import RTM_GETROUTE

_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_METRICS = 1, 2, 4, 8
_RTAX_MTU = 2
_RTM_F_FIB_MATCH = 0x2000
_TABLE_MAIN = 254
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one address: the interface it leaves by, and the route's own MTU (0: the interface's holds)."""

    interface: int
    mtu: int


def read_route(netlink: Netlink, to: str, source: str) -> Route | None:
    """The route that packets from `source` to `to` take; None if there is none. Raises KernelRefusal.

    The entry of the routing table is asked for: what was learned of the path by ICMP would show in the other answer.
    """
    for flags in (_RTM_F_FIB_MATCH, 0):  # an entry with several ways names none: then the way of the moment
        packed, own = ip_address(to).packed, ip_address(source).packed
        header = _RTMSG.pack(
            socket.AF_INET if len(packed) == 4 else socket.AF_INET6, 8 * len(packed), 8 * len(own), 0, 0, 0, 0, 0, flags
        )
        body = netlink.get(
            Message(f"look up route to {to}", RTM_GETROUTE, 0, header + attr(_RTA_DST, packed) + attr(_RTA_SRC, own))
        )
        if body is None:
            return None
        values = attributes(body, _RTMSG.size)
        if _RTA_OIF in values:
            mtu = attributes(values.get(_RTA_METRICS, b"")).get(_RTAX_MTU, b"")
            return Route(int.from_bytes(values[_RTA_OIF], "little"), int.from_bytes(mtu, "little"))
    return None


def read_routed_networks(netlink: Netlink) -> set[str]:
    """Destinations that this namespace has routes to in the main table, but for the default."""
    found: set[str] = set()
    for body in netlink.dump(Message("list routes", RTM_GETROUTE, 0, _RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))):
        values = attributes(body, _RTMSG.size)
        if body[1] and body[4] == _TABLE_MAIN and _RTA_DST in values:
            found.add(str(ip_network((values[_RTA_DST], body[1]), strict=False)))
    return found
