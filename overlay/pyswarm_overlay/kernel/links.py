"""Route-netlink messages for links that are no bridges of ours: macvlan devices, and links that somebody else made."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address, ip_network
from typing import Final

from .netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message, attr, nested, text, u32
from .rtnl import (
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_LINKINFO,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTM_SETLINK,
    VethEnd,
)
from .rtnl import mac_bytes as packed_mac

_IFLA_LINK, _INFO_KIND, _INFO_DATA = 5, 1, 2
_MACVLAN_MODE = 1
_IFLA_AF_SPEC, _INET_CONF, _DEVCONF_RP_FILTER = 26, 1, 8
_LOOSE = 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_SCOPE_LINK = 253
_IFF_UP = 1
_MODES: Final = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IFINFO = struct.Struct("=BxHiII")
_RTMSG = struct.Struct("=BBBBBBBBI")


def new_macvlan(parent: int, mode: str, end: VethEnd) -> Message:
    """Made on the interface `parent` of the socket's namespace, and sent to where `end` says."""
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text(IFLA_IFNAME, end.name)
        + u32(IFLA_MTU, end.mtu)
        + u32(_IFLA_LINK, parent)
        + (attr(IFLA_ADDRESS, packed_mac(end.mac)) if end.mac else b"")
        + (u32(IFLA_NET_NS_FD, end.netns) if end.netns is not None else b"")
        + nested(IFLA_LINKINFO, text(_INFO_KIND, "macvlan"), nested(_INFO_DATA, u32(_MACVLAN_MODE, _MODES[mode])))
    )
    return Message(f"create macvlan {end.name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def set_down(index: int) -> Message:
    return Message(f"set link {index} down", RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, _IFF_UP))


def move(index: int, end: VethEnd) -> Message:
    """A link of the socket's namespace to another one, under another name. It must be down."""
    assert end.netns is not None
    body = (
        _IFINFO.pack(0, 0, index, 0, 0)
        + text(IFLA_IFNAME, end.name)
        + (attr(IFLA_ADDRESS, packed_mac(end.mac)) if end.mac else b"")
        + u32(IFLA_NET_NS_FD, end.netns)
    )
    return Message(f"move link {index} to {end.name}", RTM_SETLINK, 0, body)


def new_route(destination: str, next_hop: str, index: int) -> Message:
    """A static route; without a next hop the destination is on the link."""
    network = ip_network(destination)
    packed = network.network_address.packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    table_main, proto_static, unicast = 254, 4, 1
    scope = 0 if next_hop or family == socket.AF_INET6 else _SCOPE_LINK
    body = (
        _RTMSG.pack(family, network.prefixlen, 0, 0, table_main, proto_static, scope, unicast, 0)
        + attr(_RTA_DST, packed)
        + (attr(_RTA_GATEWAY, ip_address(next_hop).packed) if next_hop else b"")
        + u32(_RTA_OIF, index)
    )
    return Message(
        f"route {destination} via {next_hop or 'the link'}", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body
    )


def loosen_reverse_path(index: int) -> Message:
    """Let packets in whose answers would leave by another interface (`rp_filter` 2: the host's own 1 gives way)."""
    setting = nested(_INET_CONF, u32(_DEVCONF_RP_FILTER, _LOOSE))
    body = _IFINFO.pack(0, 0, index, 0, 0) + nested(_IFLA_AF_SPEC, nested(socket.AF_INET, setting))
    return Message(f"loosen reverse path filter of link {index}", RTM_SETLINK, 0, body)
