"""Entries of connection tracking as the kernel tells and is told of them: what to ask for, what an entry says, its end.

Which entries are to go is decided by `conntrack` (in sandboxes) and `flows` (on the host). Nothing here sends anything.

The kernel picks out entries by their answers' source (Linux 5.8 and later; an earlier one lists all): a busy host has
tens of thousands of others. Not by an IPv6 one: there it would list all but the ones asked for (seen in 6.18:
`ctnetlink_filter_match_tuple` takes `ipv6_addr_cmp` for an equality). So whoever asks looks at what comes.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

from pyswarm_overlay.core.attributes import attributes

from .netlink import Message, attr, nested, u32

CTNETLINK = 1 << 8
NFGENMSG_BYTES = 4
_GET, _DELETE = CTNETLINK | 1, CTNETLINK | 2
_TUPLE_ORIG, _TUPLE_REPLY, _PROTOINFO, _MARK, _ID, _ZONE, _FILTER = 1, 2, 4, 8, 12, 18, 25
_PROTOINFO_TCP, _STATE = 1, 1
_TIME_WAIT, _CLOSE = 7, 8
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _IP_V4_DST, _IP_V6_SRC, _IP_V6_DST = 1, 2, 3, 4
_PROTO_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_REPLY_FLAGS = 2
_MATCH_SOURCE, _MATCH_PROTOCOL, _MATCH_SOURCE_PORT = 1 << 0, 1 << 3, 1 << 4
_NESTED = 0x8000


@dataclass(frozen=True, slots=True)
class Direction:
    """Of one direction's packets; an address that is missing is ""."""

    source: tuple[str, int]
    destination: tuple[str, int]
    protocol: int


class Entry:
    """One entry of a dump; only what is asked for is read."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._values = attributes(body, NFGENMSG_BYTES)

    @cached_property
    def original(self) -> Direction:
        return _direction(self._values.get(_TUPLE_ORIG, b""))

    @cached_property
    def reply(self) -> Direction:
        return _direction(self._values.get(_TUPLE_REPLY, b""))

    @property
    def mark(self) -> int:
        return int.from_bytes(self._values.get(_MARK, b""), "big")

    @property
    def progress(self) -> dict[int, bytes]:
        """What the protocol's own tracking says, by kind."""
        return attributes(self._values.get(_PROTOINFO, b""))

    @property
    def is_over(self) -> bool:
        """Whether it is a TCP connection that both ends have finished: its client may use the same port again."""
        known = attributes(self.progress.get(_PROTOINFO_TCP, b""))
        return self.original.protocol == socket.IPPROTO_TCP and number(known, _STATE) in (_TIME_WAIT, _CLOSE)

    @property
    def is_translated(self) -> bool:
        """Whether its client is answered from another address than it asked."""
        asked, answering = self.original.destination[0], self.reply.source[0]
        return bool(asked and answering) and asked != answering

    def deletion(self) -> Message:
        """Of this very entry: its original tuple holds its zone, if it has one of its own in that direction, and its id
        spares another connection that has begun between the same two ports meanwhile."""
        same = self._body[:1] + bytes(NFGENMSG_BYTES - 1)
        same += attr(_TUPLE_ORIG | _NESTED, self._values[_TUPLE_ORIG])
        for kind in (_ZONE, _ID):
            if kind in self._values:
                same += attr(kind, self._values[kind])
        return Message("cut a connection", _DELETE, 0, same, (errno.ENOENT,))


def question(family: int, *, protocol: int | None = None, source: str = "", port: int = 0) -> Message:
    """Lists the entries of a family whose answers are of that protocol, and from there."""
    where, what, flags = b"", b"", 0
    if source and family == socket.AF_INET:
        where = nested(_TUPLE_IP, attr(_IP_V4_SRC, ip_address(source).packed))
        flags |= _MATCH_SOURCE
    if protocol is not None:
        what += attr(_PROTO_NUMBER, bytes([protocol]))
        flags |= _MATCH_PROTOCOL
    if port:
        what += attr(_SOURCE_PORT, struct.pack(">H", port))
        flags |= _MATCH_SOURCE_PORT
    wanted = nested(_TUPLE_REPLY, where, nested(_TUPLE_PROTO, what) if what else b"")
    chosen = wanted + nested(_FILTER, u32(_REPLY_FLAGS, flags)) if flags else b""
    return Message("list connections", _GET, 0, bytes([family, 0, 0, 0]) + chosen)


def _direction(data: bytes) -> Direction:
    values = attributes(data)
    addresses, ports = attributes(values.get(_TUPLE_IP, b"")), attributes(values.get(_TUPLE_PROTO, b""))
    source = addresses.get(_IP_V4_SRC) or addresses.get(_IP_V6_SRC) or b""
    destination = addresses.get(_IP_V4_DST) or addresses.get(_IP_V6_DST) or b""
    return Direction(
        (_text(source), number(ports, _SOURCE_PORT)),
        (_text(destination), number(ports, _DESTINATION_PORT)),
        number(ports, _PROTO_NUMBER),
    )


def _text(packed: bytes) -> str:
    return str(ip_address(packed)) if len(packed) in (4, 16) else ""


def number(values: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(values.get(kind, b""), "big")
