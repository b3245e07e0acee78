"""The route-netlink messages that the overlay sends and the dumps that it reads.

Functions named `new_…`, `set_…`, `delete_…` only build a message; `read_…` ask the kernel. Creating what exists with
the same name is refused by the kernel, deleting what is gone is allowed.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from pyswarm_overlay.core.attributes import attributes

from .netlink import (
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

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO = 1, 3, 4, 10, 12
IFLA_LINKINFO, IFLA_GROUP, IFLA_NET_NS_FD = 18, 27, 28
_INFO_KIND, _INFO_DATA = 1, 2
_VETH_PEER = 1
_BR_FORWARD_DELAY, _BR_STP_STATE, _BR_MCAST_SNOOPING = 1, 5, 23
_VX_ID, _VX_LOCAL, _VX_LEARNING, _VX_PROXY, _VX_PORT, _VX_LOCAL6 = 1, 4, 7, 11, 15, 17
_BRPORT_LEARNING, _BRPORT_UNICAST_FLOOD, _BRPORT_ISOLATED = 8, 9, 33
_IFLA_AF_SPEC, _INET_CONF, _DEVCONF_SRC_VMARK, _DEVCONF_ROUTE_LOCALNET = 26, 1, 24, 26
_INET6_ADDR_GEN_MODE = 8
_NDA_DST, _NDA_LLADDR = 1, 2
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 2
_RTA_OIF, _RTA_GATEWAY = 4, 5
_NUD_PERMANENT, _NUD_NOARP = 0x80, 0x40
_NTF_SELF, _NTF_MASTER = 2, 4
_IFF_UP = 1
_AF_BRIDGE = 7
_CREATE = NLM_F_CREATE | NLM_F_EXCL

_IFINFO = struct.Struct("=BxHiII")
_NDMSG = struct.Struct("=BxxxiHBB")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as the kernel shows it."""

    index: int
    name: str
    mac: str
    mtu: int
    master: int
    up: bool
    kind: str
    tunnel_address: str = ""
    """A VXLAN device's own end, if it was made with one."""


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a veth pair to be made. `netns` is where it goes; None: the namespace of the socket that asks."""

    name: str
    mtu: int
    mac: str | None = None
    master: int = 0
    netns: int | None = None
    group: int = 0


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _family(packed: bytes) -> int:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6


def _ifinfo(index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    return _IFINFO.pack(family, 0, index, flags, change)


def new_bridge(name: str, mtu: int, mac: str | None = None) -> Message:
    data = (
        u32(_BR_FORWARD_DELAY, 0) + u32(_BR_STP_STATE, 0) + attr(_BR_MCAST_SNOOPING, b"\0")
    )  # no spanning tree: a port forwards at once; no snooping: its timers would wake every host
    body = (
        _ifinfo(flags=_IFF_UP, change=_IFF_UP)
        + text(IFLA_IFNAME, name)
        + u32(IFLA_MTU, mtu)
        + (attr(IFLA_ADDRESS, mac_bytes(mac)) if mac else b"")
        + nested(IFLA_LINKINFO, text(_INFO_KIND, "bridge"), nested(_INFO_DATA, data))
    )
    return Message(f"create bridge {name}", RTM_NEWLINK, _CREATE, body)


def new_vxlan(name: str, vni: int, local: str, port: int, mtu: int, netns: int) -> Message:
    """Sent on a socket of the host's namespace: the tunnel's UDP socket stays there, the device goes to `netns`."""
    packed = ip_address(local).packed
    data = (
        u32(_VX_ID, vni)
        + attr(_VX_LOCAL if len(packed) == 4 else _VX_LOCAL6, packed)
        + attr(_VX_LEARNING, b"\0")
        + attr(_VX_PROXY, b"\1")
        + attr(_VX_PORT, struct.pack(">H", port))
    )
    body = (
        _ifinfo()
        + text(IFLA_IFNAME, name)
        + u32(IFLA_MTU, mtu)
        + u32(IFLA_NET_NS_FD, netns)
        + nested(IFLA_LINKINFO, text(_INFO_KIND, "vxlan"), nested(_INFO_DATA, data))
    )
    return Message(f"create VXLAN {vni}", RTM_NEWLINK, _CREATE, body)


def set_vxlan_local(index: int, local: str) -> Message:
    """Another address of its own. The kernel takes no other family."""
    packed = ip_address(local).packed
    data = attr(_VX_LOCAL if len(packed) == 4 else _VX_LOCAL6, packed)
    body = _ifinfo(index) + nested(IFLA_LINKINFO, text(_INFO_KIND, "vxlan"), nested(_INFO_DATA, data))
    return Message(f"set VXLAN device {index} to {local}", RTM_NEWLINK, 0, body)


def new_veth(end: VethEnd, peer: VethEnd) -> Message:
    """A pair; `end` stays in the namespace of the socket and is up. The kernel cannot yet bring its peer up."""
    data = attr(_VETH_PEER, _ifinfo() + _veth_end(peer))
    body = (
        _ifinfo(flags=_IFF_UP, change=_IFF_UP)
        + _veth_end(end)
        + (u32(IFLA_MASTER, end.master) if end.master else b"")
        + nested(IFLA_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, data))
    )
    return Message(f"create veth {end.name}", RTM_NEWLINK, _CREATE, body)


def _veth_end(end: VethEnd) -> bytes:
    return (
        text(IFLA_IFNAME, end.name)
        + u32(IFLA_MTU, end.mtu)
        + (attr(IFLA_ADDRESS, mac_bytes(end.mac)) if end.mac else b"")
        + (u32(IFLA_GROUP, end.group) if end.group else b"")
        + (u32(IFLA_NET_NS_FD, end.netns) if end.netns is not None else b"")
    )


def set_link_up(index: int) -> Message:
    return Message(f"set link {index} up", RTM_SETLINK, 0, _ifinfo(index, _IFF_UP, _IFF_UP))


def set_mtu(index: int, mtu: int) -> Message:
    return Message(f"set link {index} to MTU {mtu}", RTM_SETLINK, 0, _ifinfo(index) + u32(IFLA_MTU, mtu))


def set_bridge_port(index: int, *, learning: bool, flood: bool, isolated: bool) -> Message:
    settings = (
        attr(_BRPORT_LEARNING, bytes([learning]))
        + attr(_BRPORT_UNICAST_FLOOD, bytes([flood]))
        + attr(_BRPORT_ISOLATED, bytes([isolated]))
    )
    body = _ifinfo(index, family=_AF_BRIDGE) + nested(IFLA_PROTINFO, settings)
    return Message(f"configure bridge port {index}", RTM_SETLINK, 0, body)


def allow_loopback_routes(index: int) -> Message:
    """`route_localnet` by netlink: /proc would show the settings of the calling thread's namespace, not the link's."""
    setting = nested(_INET_CONF, u32(_DEVCONF_ROUTE_LOCALNET, 1))
    body = _ifinfo(index) + nested(_IFLA_AF_SPEC, nested(socket.AF_INET, setting))
    return Message(f"allow 127.0.0.0/8 on link {index}", RTM_SETLINK, 0, body)


def no_link_local_address(index: int) -> Message:
    """Its neighbour is told: it need not ask for anybody, and the kernel not for its own address."""
    setting = nested(socket.AF_INET6, attr(_INET6_ADDR_GEN_MODE, b"\1"))
    return Message(f"no link-local address on {index}", RTM_SETLINK, 0, _ifinfo(index) + nested(_IFLA_AF_SPEC, setting))


def heed_marks(index: int) -> Message:
    """`src_valid_mark`: where a packet may come from is looked up with its mark, so that strict hosts let in what
    comes the way that its answers go."""
    setting = nested(_INET_CONF, u32(_DEVCONF_SRC_VMARK, 1))
    body = _ifinfo(index) + nested(_IFLA_AF_SPEC, nested(socket.AF_INET, setting))
    return Message(f"heed marks on link {index}", RTM_SETLINK, 0, body)


def no_own_ipv6_address(index: int) -> Message:
    """Before it comes up: it has the addresses that it is given, and makes itself none (so it says nothing either)."""
    setting = nested(socket.AF_INET6, attr(_INET6_ADDR_GEN_MODE, b"\1"))
    body = _ifinfo(index) + nested(_IFLA_AF_SPEC, setting)
    # Refused for a link whose MTU is too small for IPv6: it makes itself none.
    return Message(f"no IPv6 address of its own for link {index}", RTM_SETLINK, 0, body, (errno.EAFNOSUPPORT,))


def delete_link_named(name: str) -> Message:
    return Message(f"delete link {name}", RTM_DELLINK, 0, _ifinfo() + text(IFLA_IFNAME, name), (errno.ENODEV,))


def delete_group(group: int) -> Message:
    """Every link of the group in one go."""
    return Message(f"delete link group {group}", RTM_DELLINK, 0, _ifinfo() + u32(IFLA_GROUP, group), (errno.ENODEV,))


def new_address(index: int, address: str) -> Message:
    interface = ip_interface(address)
    packed = interface.packed
    body = (
        _IFADDR.pack(_family(packed), interface.network.prefixlen, 0, 0, index)
        + attr(_IFA_LOCAL, packed)
        + attr(_IFA_ADDRESS, packed)
        + u32(_IFA_FLAGS, _IFA_F_NODAD)
    )
    return Message(f"add address {address}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, (errno.EEXIST,))


def new_peer_address(index: int, address: str, peer: str) -> Message:
    """One address at each end of a point-to-point link; the route to the peer comes with it."""
    packed = ip_address(address).packed
    body = (
        _IFADDR.pack(_family(packed), 8 * len(packed), 0, 0, index)
        + attr(_IFA_LOCAL, packed)
        + attr(_IFA_ADDRESS, ip_address(peer).packed)
    )
    return Message(f"route {peer}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, (errno.EEXIST,))


def delete_address(index: int, address: str) -> Message:
    interface = ip_interface(address)
    body = _IFADDR.pack(_family(interface.packed), interface.network.prefixlen, 0, 0, index)
    body += attr(_IFA_LOCAL, interface.packed)
    return Message(f"delete address {address}", RTM_DELADDR, 0, body, (errno.EADDRNOTAVAIL, errno.ENODEV))


def new_default_route(gateway: str, index: int) -> Message:
    packed = ip_address(gateway).packed
    table_main, proto_static, scope_universe, unicast = 254, 4, 0, 1
    body = (
        _RTMSG.pack(_family(packed), 0, 0, 0, table_main, proto_static, scope_universe, unicast, 0)
        + attr(_RTA_GATEWAY, packed)
        + u32(_RTA_OIF, index)
    )
    return Message(f"default route via {gateway}", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)


def new_fdb(index: int, mac: str, remote: str) -> Message:
    """Send frames for `mac` through the tunnel to `remote`."""
    body = (
        _NDMSG.pack(_AF_BRIDGE, index, _NUD_PERMANENT | _NUD_NOARP, _NTF_SELF, 0)
        + attr(_NDA_LLADDR, mac_bytes(mac))
        + attr(_NDA_DST, ip_address(remote).packed)
    )
    return Message(f"forward {mac} to {remote}", RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_fdb(index: int, mac: str) -> Message:
    body = _NDMSG.pack(_AF_BRIDGE, index, 0, _NTF_SELF, 0) + attr(_NDA_LLADDR, mac_bytes(mac))
    return Message(f"stop forwarding {mac}", RTM_DELNEIGH, 0, body, (errno.ENOENT,))


def new_neighbour(index: int, address: str, mac: str) -> Message:
    packed = ip_address(address).packed
    body = (
        _NDMSG.pack(_family(packed), index, _NUD_PERMANENT, 0, 0)
        + attr(_NDA_DST, packed)
        + attr(_NDA_LLADDR, mac_bytes(mac))
    )
    return Message(f"neighbour {address}", RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_neighbour(index: int, address: str) -> Message:
    packed = ip_address(address).packed
    body = _NDMSG.pack(_family(packed), index, 0, 0, 0) + attr(_NDA_DST, packed)
    return Message(f"forget neighbour {address}", RTM_DELNEIGH, 0, body, (errno.ENOENT,))


def read_links(netlink: Netlink) -> dict[str, Link]:
    bodies = netlink.dump(Message("list links", RTM_GETLINK, 0, _ifinfo()))
    return {link.name: link for link in map(_parse_link, bodies)}


def read_link(netlink: Netlink, name: str) -> Link | None:
    body = netlink.get(Message(f"look up link {name}", RTM_GETLINK, 0, _ifinfo() + text(IFLA_IFNAME, name)))
    return None if body is None else _parse_link(body)


def _tunnel_address(data: bytes) -> str:
    """Of a VXLAN device's settings."""
    found = attributes(data)
    packed = found.get(_VX_LOCAL) or found.get(_VX_LOCAL6) or b""
    return str(ip_address(packed)) if len(packed) in (4, 16) else ""


def _parse_link(body: bytes) -> Link:
    _, _type, index, flags, _change = _IFINFO.unpack_from(body)
    found = attributes(body, _IFINFO.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_text(found.get(IFLA_IFNAME, b"")),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        mtu=int.from_bytes(found.get(IFLA_MTU, b""), "little"),
        master=int.from_bytes(found.get(IFLA_MASTER, b""), "little"),
        up=bool(flags & _IFF_UP),
        kind=_text(info.get(_INFO_KIND, b"")),
        tunnel_address=_tunnel_address(info.get(_INFO_DATA, b"")) if info.get(_INFO_KIND, b"")[:5] == b"vxlan" else "",
    )


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("ascii", "replace")


def read_addresses(netlink: Netlink) -> dict[int, set[str]]:
    """Addresses with prefix length, by interface index; link-local ones left out."""
    found: dict[int, set[str]] = {}
    for body in netlink.dump(Message("list addresses", RTM_GETADDR, 0, _IFADDR.pack(0, 0, 0, 0, 0))):
        _, prefix, _flags, _scope, index = _IFADDR.unpack_from(body)
        values = attributes(body, _IFADDR.size)
        packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
        if packed:
            address = ip_address(packed)
            if not address.is_link_local:
                found.setdefault(index, set()).add(f"{address}/{prefix}")
    return found


def read_peers(netlink: Netlink, index: int) -> set[str]:
    """The addresses at the other end of a point-to-point link."""
    found: set[str] = set()
    for body in netlink.dump(Message("list addresses", RTM_GETADDR, 0, _IFADDR.pack(0, 0, 0, 0, 0))):
        values = attributes(body, _IFADDR.size)
        if _IFADDR.unpack_from(body)[4] == index and _IFA_ADDRESS in values:
            found.add(str(ip_address(values[_IFA_ADDRESS])))
    return found


def read_default_gateways(netlink: Netlink) -> set[tuple[str, int]]:
    """(gateway, interface index) of every default route in the main table."""
    found: set[tuple[str, int]] = set()
    for body in netlink.dump(Message("list routes", RTM_GETROUTE, 0, _RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))):
        destination_length, table = body[1], body[4]
        values = attributes(body, _RTMSG.size)
        if destination_length == 0 and table == 254 and _RTA_GATEWAY in values and _RTA_OIF in values:
            index = int.from_bytes(values[_RTA_OIF], "little")
            found.add((str(ip_address(values[_RTA_GATEWAY])), index))
    return found


def read_fdb(netlink: Netlink, index: int) -> dict[str, str]:
    """MAC -> remote address of the tunnel device `index`."""
    found: dict[str, str] = {}
    body = _ifinfo(index, family=_AF_BRIDGE)
    for entry in netlink.dump(Message("list forwarding entries", RTM_GETNEIGH, 0, body)):
        family, entry_index, _state, flags, _type = _NDMSG.unpack_from(entry)
        values = attributes(entry, _NDMSG.size)
        if family == _AF_BRIDGE and entry_index == index and flags & _NTF_SELF and _NDA_DST in values:
            found[values[_NDA_LLADDR].hex(":")] = str(ip_address(values[_NDA_DST]))
    return found


def read_neighbours(netlink: Netlink, index: int) -> dict[str, str]:
    """Address -> MAC of the permanent neighbours on device `index`."""
    found: dict[str, str] = {}
    for entry in netlink.dump(Message("list neighbours", RTM_GETNEIGH, 0, _NDMSG.pack(0, 0, 0, 0, 0))):
        family, entry_index, state, _flags, _type = _NDMSG.unpack_from(entry)
        values = attributes(entry, _NDMSG.size)
        wanted = family in (socket.AF_INET, socket.AF_INET6) and entry_index == index and state & _NUD_PERMANENT
        if wanted and _NDA_DST in values and _NDA_LLADDR in values:
            found[str(ip_address(values[_NDA_DST]))] = values[_NDA_LLADDR].hex(":")
    return found
