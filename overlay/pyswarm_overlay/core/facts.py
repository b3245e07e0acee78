"""What a namespace shows of links, addresses, routes and neighbours: parsed from route-netlink dumps. Pure.

Only what verification compares is kept. What cannot be parsed is passed over: it is then missing, and found so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from .attributes import attributes

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
NDMSG = struct.Struct("=BxxxiHBB")

AF_INET, AF_BRIDGE, AF_INET6 = 2, 7, 10
_IFF_UP, _IFF_NOARP = 1, 0x80
_NUD_PERMANENT, _NUD_NOARP = 0x80, 0x40
_NTF_SELF = 2
_ROUTE_LOCALNET = 26
MAIN_TABLE, LOCAL_TABLE = 254, 255
_CLONED = 0x200


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """One interface. `tunnel` is None where it is no VXLAN device."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    master: int
    up: bool
    arp: bool
    localnet: bool
    tunnel: tuple[int, str, int, bool, bool] | None = None
    """(VNI, own address, UDP port, learning, proxy)"""


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """`address` carries the prefix length; `peer` is the other end of a point-to-point link."""

    index: int
    address: str
    peer: str


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """A route; `kind` 1 is unicast, 2 local, others refuse."""

    table: int
    destination: str
    gateway: str
    index: int
    kind: int
    metric: int


@dataclass(frozen=True, slots=True)
class NeighbourFacts:
    """A neighbour (address -> MAC) or, without an address, a forwarding entry (MAC -> way)."""

    index: int
    address: str
    mac: str
    remote: str
    permanent: bool
    of_device: bool
    """A forwarding entry of the device itself (a tunnel), not of the bridge."""
    vlan: int = 0
    odd: bool = False
    """Sends elsewhere than the device's own port, VNI and link say."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What one namespace shows."""

    links: Mapping[str, LinkFacts]
    addresses: Sequence[AddressFacts] = ()
    routes: Sequence[RouteFacts] = ()
    neighbours: Sequence[NeighbourFacts] = ()
    """Forwarding entries too."""


def links(bodies: Iterable[bytes]) -> dict[str, LinkFacts]:
    found = (_link(body) for body in bodies if len(body) >= IFINFO.size)
    return {link.name: link for link in found}


def _link(body: bytes) -> LinkFacts:
    _family, _type, index, flags, _change = IFINFO.unpack_from(body)
    found = attributes(body, IFINFO.size)
    info = attributes(found.get(18, b""))
    kind = _text(info.get(1, b""))
    conf = attributes(attributes(found.get(26, b"")).get(AF_INET, b"")).get(1, b"")
    return LinkFacts(
        index=index,
        name=_text(found.get(3, b"")),
        kind=kind,
        mac=found.get(1, b"").hex(":"),
        mtu=_number(found.get(4, b"")),
        master=_number(found.get(10, b"")),
        up=bool(flags & _IFF_UP),
        arp=not flags & _IFF_NOARP,
        localnet=_number(conf[4 * (_ROUTE_LOCALNET - 1) : 4 * _ROUTE_LOCALNET]) == 1,
        tunnel=_tunnel(attributes(info.get(2, b""))) if kind == "vxlan" else None,
    )


def _tunnel(data: dict[int, bytes]) -> tuple[int, str, int, bool, bool]:
    own = data.get(4) or data.get(17) or b""
    address = str(ip_address(own)) if len(own) in (4, 16) else ""
    port = int.from_bytes(data.get(15, b""), "big")
    return _number(data.get(1, b"")), address, port, bool(_truth(data.get(7))), bool(_truth(data.get(11)))


def addresses(bodies: Iterable[bytes]) -> list[AddressFacts]:
    """Link-local ones left out."""
    found = []
    for body in bodies:
        if len(body) < IFADDR.size:
            continue
        _family, prefix, _flags, _scope, index = IFADDR.unpack_from(body)
        values = attributes(body, IFADDR.size)
        own, peer = values.get(2) or values.get(1), values.get(1)
        if own and len(own) in (4, 16) and not ip_address(own).is_link_local:
            other = str(ip_address(peer)) if peer and len(peer) in (4, 16) and peer != own else ""
            found.append(AddressFacts(index, f"{ip_address(own)}/{prefix}", other))
    return found


def routes(bodies: Iterable[bytes]) -> list[RouteFacts]:
    """Of the main and the local table; what the kernel made for link-local and multicast left out."""
    found = []
    for body in bodies:
        if len(body) < RTMSG.size:
            continue
        family, length, _, _, table, _protocol, _scope, kind, flags = RTMSG.unpack_from(body)
        if table not in (MAIN_TABLE, LOCAL_TABLE) or flags & _CLONED or family not in (AF_INET, AF_INET6):
            continue
        values = attributes(body, RTMSG.size)
        packed = values.get(1, bytes(4 if family == AF_INET else 16))
        destination = ip_network((packed, length), strict=False)
        if destination.is_multicast or (destination.is_link_local and length):
            continue
        gateway = values.get(5, b"")
        found.append(
            RouteFacts(
                table=table,
                destination=str(destination),
                gateway=str(ip_address(gateway)) if len(gateway) in (4, 16) else "",
                index=_number(values.get(4, b"")),
                kind=kind,
                metric=_number(values.get(6, b"")),
            )
        )
    return found


def neighbours(bodies: Iterable[bytes]) -> list[NeighbourFacts]:
    found = []
    for body in bodies:
        if len(body) < NDMSG.size:
            continue
        family, index, state, flags, _type = NDMSG.unpack_from(body)
        values = attributes(body, NDMSG.size)
        where = values.get(1, b"")
        target = str(ip_address(where)) if len(where) in (4, 16) else ""
        bridged = family == AF_BRIDGE
        found.append(
            NeighbourFacts(
                index=index,
                address="" if bridged else target,
                mac=values.get(2, b"").hex(":"),
                remote=target if bridged else "",
                permanent=bool(state & (_NUD_PERMANENT | _NUD_NOARP)) if bridged else bool(state & _NUD_PERMANENT),
                of_device=bridged and bool(flags & _NTF_SELF),
                vlan=_number(values.get(5, b"")),
                odd=bridged and any(kind in values for kind in (6, 7, 8)),
            )
        )
    return found


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _truth(data: bytes | None) -> bool | None:
    return None if data is None else bool(data[:1] != b"\0")


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("ascii", "replace")
