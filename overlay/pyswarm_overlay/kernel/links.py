"""Route-netlink messages for links that are no bridges of ours: macvlan devices, and links that somebody else made."""

from __future__ import annotations

import socket
import struct
from typing import Final

from .netlink import NLM_F_CREATE, NLM_F_EXCL, Message, attr, nested, text, u32
from .rtnl import IFLA_ADDRESS, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, IFLA_NET_NS_FD, RTM_NEWLINK, RTM_SETLINK, VethEnd
from .rtnl import mac_bytes as packed_mac

_IFLA_LINK, _INFO_KIND, _INFO_DATA = 5, 1, 2
_MACVLAN_MODE = 1
_IFLA_AF_SPEC, _INET_CONF, _DEVCONF_RP_FILTER = 26, 1, 8
_LOOSE = 2
_IFF_UP = 1
_MODES: Final = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IFINFO = struct.Struct("=BxHiII")


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


def loosen_reverse_path(index: int) -> Message:
    """Let packets in whose answers would leave by another interface (`rp_filter` 2: the host's own 1 gives way)."""
    setting = nested(_INET_CONF, u32(_DEVCONF_RP_FILTER, _LOOSE))
    body = _IFINFO.pack(0, 0, index, 0, 0) + nested(_IFLA_AF_SPEC, nested(socket.AF_INET, setting))
    return Message(f"loosen reverse path filter of link {index}", RTM_SETLINK, 0, body)
