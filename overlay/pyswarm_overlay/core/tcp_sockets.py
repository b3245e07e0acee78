"""Who is connected to a sandbox, from the kernel's list of its TCP sockets (`struct inet_diag_msg`). Pure.

A connection counts while data may still come or go on it, if it was opened from outside: to a port that something in
the sandbox listens on, and not over the loopback interface.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

LISTEN = 10
OPEN = (1, 3, 4, 8, 9, 11)
"""ESTABLISHED, SYN_RECV, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING: not what merely waits for its end."""
_HEAD = struct.Struct("!BBxxHxx16s")


def question(family: int) -> bytes:
    """What asks for the sockets of the family that matter here (`struct inet_diag_req_v2`)."""
    states = sum(1 << state for state in (LISTEN, *OPEN))
    return struct.pack("=BBxxI48x", family, socket.IPPROTO_TCP, states)


def count_inbound(sockets: Iterable[bytes]) -> int:
    """How many connections others have to the sandbox. What is no socket is passed over."""
    listening: set[int] = set()
    ports: list[int] = []
    for body in sockets:
        if len(body) < _HEAD.size:
            continue
        family, state, port, address = _HEAD.unpack_from(body)
        if state == LISTEN:
            listening.add(port)
        elif state in OPEN and not _is_loopback(family, address):
            ports.append(port)
    return sum(port in listening for port in ports)


def _is_loopback(family: int, address: bytes) -> bool:
    if family == socket.AF_INET:
        return address[0] == 127
    found = ip_address(address)
    assert isinstance(found, IPv6Address)
    return (found.ipv4_mapped or found).is_loopback
