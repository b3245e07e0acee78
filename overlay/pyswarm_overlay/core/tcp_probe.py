"""A TCP segment that makes the other end of a connection say where it stands. Pure bytes.

SYN and FIN together begin nothing and end nothing: connection tracking takes the segment for no connection's, and an
established TCP answers any segment with SYN by an acknowledgement that tells what it expects next (RFC 5961). Whoever
resets that acknowledgement is believed, without having known a sequence number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

_TCP = 6
_FIN_AND_SYN = 3
_SEGMENT = struct.Struct(">HHIIBBHHH")
_HOPS = 64


@dataclass(frozen=True, slots=True)
class Connection:
    """As the client has it: its own end, and the address that it connected to."""

    client: tuple[str, int]
    server: tuple[str, int]

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.client[0]


def probe(connection: Connection) -> bytes:
    """From the server's end to the client, with the IP header."""
    source, destination = ip_address(connection.server[0]).packed, ip_address(connection.client[0]).packed
    segment = _SEGMENT.pack(connection.server[1], connection.client[1], 0, 0, 5 << 4, _FIN_AND_SYN, 0, 0, 0)
    size = len(segment)
    if connection.is_ipv6:
        pseudo = source + destination + struct.pack(">II", size, _TCP)
        header = struct.pack(">IHBB", 6 << 28, size, _TCP, _HOPS) + source + destination
    else:
        pseudo = source + destination + struct.pack(">HH", _TCP, size)
        # The kernel fills in lengths and checksum of this one.
        header = struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0, _HOPS, _TCP, 0) + source + destination
    return header + segment[:16] + struct.pack(">H", checksum(pseudo + segment)) + segment[18:]


def checksum(data: bytes) -> int:
    """Of an even number of bytes, as the internet protocols have it."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
