"""Reads what a trace meets: DNS answers, the backends in a sandbox's rules, listening sockets. Pure.

What comes from outside (an answer from whatever answers at 127.0.0.11) is read within its bounds and never trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

A, AAAA = 1, 28
_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")
_MAX_RECORDS = 1000
_POINTER = 0xC0
_DIAG = struct.Struct("!BBxxHH16s")
_DIAG_BYTES = 72
TCP_LISTEN, UDP_UNCONNECTED, UDP_CONNECTED = 10, 7, 1


def dns_question(name: str, kind: int, identifier: int) -> bytes:
    """Raises ValueError for what is no host name."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    if not all(0 < len(label) < 64 for label in labels) or len(name) > 253:
        raise ValueError(f"{name!r} is no host name")
    written = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _HEADER.pack(identifier, 0x0100, 1, 0, 0, 0) + written + struct.pack("!HH", kind, 1)


def dns_answer(data: bytes, identifier: int) -> tuple[int, list[str]] | None:
    """(code, addresses) of an answer to our question; None if it is none. Code 3: there is no such name."""
    if len(data) < _HEADER.size:
        return None
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    if number != identifier or not flags & 0x8000:
        return None
    offset = _HEADER.size
    for _ in range(min(questions, 4)):
        offset = _after_name(data, offset) + 4
    found = []
    for _ in range(min(answers, _MAX_RECORDS)):
        offset = _after_name(data, offset)
        if offset + _RECORD.size > len(data):
            break
        kind, _class, _ttl, length = _RECORD.unpack_from(data, offset)
        value = data[offset + _RECORD.size : offset + _RECORD.size + length]
        offset += _RECORD.size + length
        if (kind, len(value)) in ((A, 4), (AAAA, 16)):
            found.append(str(ip_address(value)))
    return flags & 0xF, found


def _after_name(data: bytes, offset: int) -> int:
    while offset < len(data):
        length = data[offset]
        if length & _POINTER == _POINTER:
            return offset + 2
        offset += 1 + length
        if length == 0:
            return offset
    return len(data)


def backends_in(listing: Mapping[str, Any], chain: str, vip: str) -> list[str] | None:
    """Addresses that the rules of a VIP's chain lead to, from libnftables' listing of a table; None: no such chain."""
    found: dict[str, None] = {}
    is_there = False
    for item in listing.get("nftables", ()):
        is_there = is_there or item.get("chain", {}).get("name") == chain
        rule = item.get("rule", {})
        if rule.get("chain") == chain:
            found.update((text, None) for text in _texts(rule.get("expr", [])) if text != vip and _is_address(text))
    return list(found) if is_there else None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def sockets_question(family: int, protocol: int) -> bytes:
    """Asks sock_diag for the sockets that wait for others (`struct inet_diag_req_v2`)."""
    states = 1 << TCP_LISTEN if protocol == 6 else 1 << UDP_UNCONNECTED | 1 << UDP_CONNECTED
    return struct.pack("=BBBxI48x", family, protocol, 0, states)


def listeners(bodies: Iterable[bytes], port: int) -> list[str]:
    """Addresses on which something waits at that port ("0.0.0.0" and "::" for all)."""
    found: dict[str, None] = {}
    for body in bodies:
        if len(body) < _DIAG_BYTES:
            continue
        family, _state, source, _destination, address = _DIAG.unpack_from(body)
        if source == port:
            found[str(ip_address(address[:4] if family == 2 else address))] = None
    return list(found)


def is_served_at(address: str, waiting: Iterable[str]) -> bool:
    """Whether one of these takes what comes for `address`. A socket for all IPv6 addresses takes IPv4 too."""
    everywhere = {"::"} if ":" in address else {"0.0.0.0", "::"}  # noqa: S104  (read, not bound)
    return any(one == address or one in everywhere or one == f"::ffff:{address}" for one in waiting)
