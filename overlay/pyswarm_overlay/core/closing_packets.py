"""Packets that tell a client of a removed backend that its connection is gone. Pure bytes.

TCP: a segment that makes the client say where it stands. SYN and FIN together begin nothing and end nothing: connection
tracking takes the segment for no connection's, and an established TCP answers any segment with SYN by an
acknowledgement that tells what it expects next (RFC 5961). Whoever resets that is believed, without having known a
sequence number. SCTP: an ABORT; connection tracking has told the tag that the client believes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

TCP, SCTP = 6, 132
_FIN_AND_SYN = 3
_SEGMENT = struct.Struct(">HHIIBBHHH")
_ABORT = struct.pack(">BBH", 6, 0, 4)
_HOPS = 64
_CASTAGNOLI = 0x82F63B78


@dataclass(frozen=True, slots=True)
class Connection:
    """As the client has it: its own end, and the address that it connected to. `tag`: of SCTP, the client's own."""

    client: tuple[str, int]
    server: tuple[str, int]
    protocol: int = TCP
    tag: int = 0

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.client[0]


def closing_packet(connection: Connection) -> bytes:
    """From the server's end to the client, with the IP header."""
    if connection.protocol == SCTP:
        source, destination = _ends(connection.client, connection.server)
        return _header(source, destination, SCTP, 16) + _abort(connection)
    return segment(connection.client, connection.server, _FIN_AND_SYN)


def segment(client: tuple[str, int], server: tuple[str, int], flags: int, window: int = 0) -> bytes:
    """Of TCP, without data, from the server's end to the client, with the IP header."""
    source, destination = _ends(client, server)
    unsigned = _SEGMENT.pack(server[1], client[1], 0, 0, 5 << 4, flags, window, 0, 0)
    total = checksum(source + destination + struct.pack(">HH", TCP, len(unsigned)) + unsigned)
    return _header(source, destination, TCP, len(unsigned)) + unsigned[:16] + struct.pack(">H", total) + unsigned[18:]


def _ends(client: tuple[str, int], server: tuple[str, int]) -> tuple[bytes, bytes]:
    return ip_address(server[0]).packed, ip_address(client[0]).packed


def _header(source: bytes, destination: bytes, protocol: int, size: int) -> bytes:
    if len(source) == 16:
        return struct.pack(">IHBB", 6 << 28, size, protocol, _HOPS) + source + destination
    # The kernel fills in lengths and checksum of this one.
    return struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0, _HOPS, protocol, 0) + source + destination


def _abort(connection: Connection) -> bytes:
    head = struct.pack(">HHI", connection.server[1], connection.client[1], connection.tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + _ABORT)) + _ABORT


def checksum(data: bytes) -> int:
    """Of an even number of bytes, as TCP has it."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def crc32c(data: bytes) -> int:
    """As SCTP has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
