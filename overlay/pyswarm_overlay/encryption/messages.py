"""The route-netlink messages that only tunnels need. As in `kernel.rtnl`, these functions only build a message."""

from __future__ import annotations

import errno
import struct
from ipaddress import ip_address

from pyswarm_overlay.core.attributes import attributes
from pyswarm_overlay.kernel import rtnl
from pyswarm_overlay.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Netlink,
    attr,
    nested,
    text,
    u32,
)

_RTM_DELROUTE = 25
_INFO_KIND, _INFO_DATA = 1, 2
_VX_ID, _VX_LEARNING, _VX_PROXY, _VX_PORT, _VX_GROUP6 = 1, 7, 11, 15, 16
_VX_ZERO_CHECKSUM_SENT, _VX_ZERO_CHECKSUM_TAKEN = 19, 20
_RTA_DST, _RTA_OIF, _RTA_PREFSRC = 1, 4, 7
_IFINFO = struct.Struct("=BxHiII")
_RTMSG = struct.Struct("=BBBBBBBBI")
_INET6 = 10
_MAIN, _STATIC, _UNIVERSE, _UNICAST = 254, 4, 0, 1


def new_wireguard(name: str) -> Message:
    """A device of the kernel's own. Its UDP socket is of the namespace that it is made in, wherever it goes then."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + text(rtnl.IFLA_IFNAME, name)
    body += nested(rtnl.IFLA_LINKINFO, text(_INFO_KIND, "wireguard"))
    return Message(f"create WireGuard device {name}", rtnl.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def new_sealed_vxlan(name: str, vni: int, port: int, mtu: int, netns: int) -> Message:
    """Sent on a socket of the tunnels' namespace: its packets have no other way than a tunnel.

    No local address: the route to each peer names the source. No UDP checksum: WireGuard's is better.
    """
    data = (
        u32(_VX_ID, vni)
        + attr(_VX_GROUP6, bytes(16))
        + attr(_VX_LEARNING, b"\0")
        + attr(_VX_PROXY, b"\1")
        + attr(_VX_PORT, struct.pack(">H", port))
        + attr(_VX_ZERO_CHECKSUM_SENT, b"\1")
        + attr(_VX_ZERO_CHECKSUM_TAKEN, b"\1")
    )
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text(rtnl.IFLA_IFNAME, name)
        + u32(rtnl.IFLA_MTU, mtu)
        + u32(rtnl.IFLA_NET_NS_FD, netns)
        + nested(rtnl.IFLA_LINKINFO, text(_INFO_KIND, "vxlan"), nested(_INFO_DATA, data))
    )
    return Message(f"create encrypted VXLAN {vni}", rtnl.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def move_link(index: int, netns: int) -> Message:
    body = _IFINFO.pack(0, 0, index, 0, 0) + u32(rtnl.IFLA_NET_NS_FD, netns)
    return Message(f"move link {index}", rtnl.RTM_SETLINK, 0, body)


def set_up(index: int, mtu: int) -> Message:
    body = _IFINFO.pack(0, 0, index, 1, 1) + u32(rtnl.IFLA_MTU, mtu)
    return Message(f"set link {index} up", rtnl.RTM_SETLINK, 0, body)


def put_route(destination: str, index: int, source: str) -> Message:
    """In one step from whatever device it led to."""
    return Message(
        f"route {destination}",
        rtnl.RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_REPLACE,
        _route(destination, index) + attr(_RTA_PREFSRC, ip_address(source).packed),
    )


def delete_route(destination: str, index: int) -> Message:
    return Message(f"remove route {destination}", _RTM_DELROUTE, 0, _route(destination, index), (errno.ESRCH,))


def _route(destination: str, index: int) -> bytes:
    head = _RTMSG.pack(_INET6, 128, 0, 0, _MAIN, _STATIC, _UNIVERSE, _UNICAST, 0)
    return head + attr(_RTA_DST, ip_address(destination).packed) + u32(_RTA_OIF, index)


def read_routes(netlink: Netlink) -> dict[str, tuple[int, str]]:
    """Destination -> (interface, source) of the routes that we write: to single IPv6 addresses, in the main table."""
    found: dict[str, tuple[int, str]] = {}
    request = Message("list routes", rtnl.RTM_GETROUTE, 0, _RTMSG.pack(_INET6, 0, 0, 0, 0, 0, 0, 0, 0))
    for body in netlink.dump(request):
        values = attributes(body, _RTMSG.size)
        if (body[0], body[1], body[4], body[5]) == (_INET6, 128, _MAIN, _STATIC) and _RTA_OIF in values:
            source = values.get(_RTA_PREFSRC, b"")
            index = int.from_bytes(values[_RTA_OIF], "little")
            found[str(ip_address(values[_RTA_DST]))] = (index, str(ip_address(source)) if source else "")
    return found
