"""Translated connections of this host: end those to given targets, and have their clients notice.

A TCP client that sends nothing would not notice that its connection is gone. So it is sent what looks like the answer
to a new connection (SYN and ACK). RFC 5961 has its kernel say where it stands, and *that* packet, which belongs to no
connection any more, is answered with a reset it believes. Nothing needs to be known of it but its addresses, and
connection tracking on the way (the node that the client came through) lets such a packet pass in every state, where
it drops acknowledgements outside the window.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from pyswarm_overlay.core.published import TargetKey

from .netlink import Message, Netlink, attr, attributes, nested, u32

log = logging.getLogger(__name__)

_CTNETLINK = 1 << 8
_GET, _DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_TUPLE_ORIG, _TUPLE_REPLY, _MARK, _ZONE, _FILTER = 1, 2, 8, 18, 25
_TUPLE_IP, _TUPLE_PROTO, _TUPLE_ZONE = 1, 2, 3
_IP_V4_SRC, _IP_V4_DST, _IP_V6_SRC, _IP_V6_DST = 1, 2, 3, 4
_PROTO_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_REPLY_FLAGS = 2
_MATCH_SOURCE, _MATCH_PROTOCOL, _MATCH_SOURCE_PORT = 1 << 0, 1 << 3, 1 << 4
_NFGENMSG_BYTES = 4
_NESTED = 0x8000
_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}
_SO_MARK = 36
_MAX_NUDGES = 20_000
_SYN_AND_ACK = 0x12


@dataclass(frozen=True, slots=True)
class Flow:
    """A TCP connection that was ended: the client's end, and where it thinks that it is connected to."""

    client: tuple[str, int]
    server: tuple[str, int]
    mark: int


def end(netlink: Netlink, targets: Collection[TargetKey]) -> list[Flow]:
    """Delete every connection to these targets; returns the TCP ones."""
    doomed: dict[bytes, None] = {}
    for target in sorted(targets):
        for body in netlink.dump(_question(target)):
            if _leads_to(body, target):
                doomed[body] = None
    netlink.transact([_deletion(body) for body in doomed])
    return [flow for flow in map(_tcp_flow, doomed) if flow is not None]


def _question(target: TargetKey) -> Message:
    """Lists the entries whose answers come from the target. A kernel before 5.8 lists all, and we pick."""
    address = ip_address(target.address)
    source = _IP_V4_SRC if address.version == 4 else _IP_V6_SRC
    reply = nested(
        _TUPLE_REPLY,
        nested(_TUPLE_IP, attr(source, address.packed)),
        nested(
            _TUPLE_PROTO,
            attr(_PROTO_NUMBER, bytes([_NUMBERS[target.protocol]])),
            attr(_SOURCE_PORT, struct.pack(">H", target.port)),
        ),
    )
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    # Asked for an IPv6 address the kernel lists all but its entries (seen in 6.18: it takes a comparison for equality).
    flags = _MATCH_PROTOCOL | _MATCH_SOURCE_PORT | (_MATCH_SOURCE if address.version == 4 else 0)
    return Message(
        "list connections", _GET, 0, bytes([family, 0, 0, 0]) + reply + nested(_FILTER, u32(_REPLY_FLAGS, flags))
    )


def _leads_to(body: bytes, target: TargetKey) -> bool:
    values = attributes(body, _NFGENMSG_BYTES)
    (source, port), _to, protocol = _tuple(values.get(_TUPLE_REPLY, b""))
    _client, (destination, _port), _ = _tuple(values.get(_TUPLE_ORIG, b""))
    if destination == source:
        return False  # not translated: none of ours
    return (source, port, protocol) == (target.address, target.port, _NUMBERS[target.protocol])


def _tuple(data: bytes) -> tuple[tuple[str, int], tuple[str, int], int]:
    """((source, port), (destination, port), protocol); "" for an address that is missing."""
    values = attributes(data)
    addresses, ports = attributes(values.get(_TUPLE_IP, b"")), attributes(values.get(_TUPLE_PROTO, b""))
    source = addresses.get(_IP_V4_SRC) or addresses.get(_IP_V6_SRC) or b""
    destination = addresses.get(_IP_V4_DST) or addresses.get(_IP_V6_DST) or b""
    return (
        (_text(source), int.from_bytes(ports.get(_SOURCE_PORT, b""), "big")),
        (_text(destination), int.from_bytes(ports.get(_DESTINATION_PORT, b""), "big")),
        int.from_bytes(ports.get(_PROTO_NUMBER, b""), "big"),
    )


def _text(packed: bytes) -> str:
    return str(ip_address(packed)) if len(packed) in (4, 16) else ""


def _deletion(body: bytes) -> Message:
    """Of this very entry: its original tuple holds its zone, if it has one of its own in that direction."""
    values = attributes(body, _NFGENMSG_BYTES)
    same = body[:1] + bytes(_NFGENMSG_BYTES - 1) + attr(_TUPLE_ORIG | _NESTED, values[_TUPLE_ORIG])
    if _ZONE in values:
        same += attr(_ZONE, values[_ZONE])
    return Message("cut a connection", _DELETE, 0, same, (errno.ENOENT,))


def _tcp_flow(body: bytes) -> Flow | None:
    values = attributes(body, _NFGENMSG_BYTES)
    client, server, protocol = _tuple(values.get(_TUPLE_ORIG, b""))
    if protocol != socket.IPPROTO_TCP or not client[0] or not server[0]:
        return None
    return Flow(client, server, int.from_bytes(values.get(_MARK, b""), "big"))


def nudge(flows: Sequence[Flow], mark: int) -> int:
    """Have the clients of connections that were ended ask about them; returns how many were asked.

    `mark`: of packets that connection tracking is to pass by; flows that came through a node have such a one.
    """
    if len(flows) > _MAX_NUDGES:
        log.warning("%d clients are not told that their connections are gone: they learn with their next packet",
                    len(flows) - _MAX_NUDGES)  # fmt: skip
    asked = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        mine = [flow for flow in flows[:_MAX_NUDGES] if (":" in flow.client[0]) == (family == socket.AF_INET6)]
        if mine:
            asked += _nudge_family(family, mine, mark)
    return asked


def _nudge_family(family: socket.AddressFamily, flows: Iterable[Flow], mark: int) -> int:
    """A client that cannot be reached is passed over: nobody waits there."""
    asked = 0
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sender:
        for flow in flows:
            try:
                sender.setsockopt(socket.SOL_SOCKET, _SO_MARK, flow.mark or mark)
                sender.sendto(probe(flow), (flow.client[0], 0))
                asked += 1
            except OSError as error:
                log.debug("client %s cannot be told that its connection is gone: %s", flow.client[0], error)
    return asked


def probe(flow: Flow) -> bytes:
    """A segment without data from the server's end, with its IP header."""
    source, destination = ip_address(flow.server[0]).packed, ip_address(flow.client[0]).packed
    segment = struct.pack(">HHIIBBHHH", flow.server[1], flow.client[1], 0, 0, 5 << 4, _SYN_AND_ACK, 1024, 0, 0)
    if len(source) == 4:
        pseudo = source + destination + struct.pack(">BBH", 0, socket.IPPROTO_TCP, len(segment))
        # The kernel fills in the length, the identification and the checksum of the header.
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0, source, destination)
    else:
        pseudo = source + destination + struct.pack(">IHBB", len(segment), 0, 0, socket.IPPROTO_TCP)
        header = struct.pack(">IHBB16s16s", 6 << 28, len(segment), socket.IPPROTO_TCP, 64, source, destination)
    total = _checksum(pseudo + segment)
    return header + segment[:16] + struct.pack(">H", total) + segment[18:]


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
