"""Who is served by a sandbox now, from the kernel's list of its TCP sockets (`struct inet_diag_msg`). Pure.

Counted are connections that were opened from outside (to a port that something in the sandbox listens on, and not over
the loopback interface) and on which something is under way: it is being opened or closed, data waits to be read or to
arrive, was received later than anything was sent (a request without an answer), or moved a moment ago. A connection
that a client merely keeps for its next request is not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

IPV4, IPV6, TCP = 2, 10, 6
"""As Linux numbers them."""
ESTABLISHED, LISTEN = 1, 10
OPEN = (ESTABLISHED, 3, 4, 8, 9, 11)
"""And SYN_RECV, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING: not what merely waits for its end."""
LATELY_MS = 500
_HEAD = struct.Struct("!BBxxHxx16s")
_QUEUES = struct.Struct("=56xII")
_MESSAGE_BYTES = 72
_ATTRIBUTE = struct.Struct("=HH")
_INFO = 2
_TIMES = struct.Struct("=44xIxxxxI")


def question(family: int) -> bytes:
    """What asks for the sockets of the family that matter here (`struct inet_diag_req_v2`), with their `tcp_info`."""
    states = sum(1 << state for state in (LISTEN, *OPEN))
    return struct.pack("=BBBxI48x", family, TCP, 1 << (_INFO - 1), states)


def count_served(sockets: Iterable[bytes]) -> int:
    """How many connections of others have something under way. What is no socket is passed over."""
    listening: set[int] = set()
    ports: list[int] = []
    for body in sockets:
        if len(body) < _MESSAGE_BYTES:
            continue
        family, state, port, address = _HEAD.unpack_from(body)
        if state == LISTEN:
            listening.add(port)
        elif state in OPEN and not _is_loopback(family, address) and _is_under_way(state, body):
            ports.append(port)
    return sum(port in listening for port in ports)


def _is_loopback(family: int, address: bytes) -> bool:
    if family == IPV4:
        return address[0] == 127
    found = ip_address(address)
    assert isinstance(found, IPv6Address)
    return (found.ipv4_mapped or found).is_loopback


def _is_under_way(state: int, body: bytes) -> bool:
    if state != ESTABLISHED or any(_QUEUES.unpack_from(body)):
        return True
    times = _times(body)
    if times is None:
        return True
    sent_ms_ago, received_ms_ago = times
    return received_ms_ago < sent_ms_ago or min(times) < LATELY_MS


def _times(body: bytes) -> tuple[int, int] | None:
    """How long ago data was sent and received last; None where the kernel does not say."""
    offset = _MESSAGE_BYTES
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if kind == _INFO and length >= _ATTRIBUTE.size + _TIMES.size and offset + length <= len(body):
            sent, received = _TIMES.unpack_from(body, offset + _ATTRIBUTE.size)
            return sent, received
        if length < _ATTRIBUTE.size:
            break
        offset += (length + 3) & ~3
    return None
