"""The letters of nftables' netlink language: attributes, messages, one transaction. Pure bytes; decides nothing.

Numbers are in network order, unlike those of route netlink. Whoever writes a table uses these and sends what `batch`
makes through the netfilter socket of the namespace meant.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

Part = tuple[int, int, bytes]
"""Message type, flags, body."""
FamilyPart = tuple[int, int, int, bytes]
"""The family of its table, then as above."""

NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN = 0, 1, 2, 3, 4, 5
NEWRULE, GETRULE, DELRULE, NEWSET, NEWELEM, GETELEM, DELELEM, NEWOBJ = 6, 7, 8, 9, 12, 13, 14, 18
INET, IPV4, IPV6 = 1, 2, 10
SUBSYSTEM = 10
CREATE, APPEND = 0x400, 0x800
_BATCH_BEGIN, _BATCH_END = 16, 17
_REQUEST, _ACK = 1, 4
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_NFGEN = struct.Struct(">BBH")


def attr(kind: int, payload: bytes) -> bytes:
    return _ATTR.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    return attr(kind | _NESTED, b"".join(parts))


def u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">I", value))


def text(kind: int, value: str) -> bytes:
    return attr(kind, value.encode() + b"\0")


def expression(name: str, *parts: bytes) -> bytes:
    return nest(1, text(1, name) + nest(2, *parts))


def head(family: int, resource: int = 0) -> bytes:
    """What every message begins with."""
    return _NFGEN.pack(family, 0, resource)


def kind_of(message: int) -> int:
    """The message type as the kernel counts it, for a request outside a transaction."""
    return SUBSYSTEM << 8 | message


def batch(family: int, parts: Sequence[Part], sequence: int) -> tuple[bytes, int]:
    """One transaction whose messages count up from `sequence`; its last change is acknowledged."""
    return mixed_batch([(family, *part) for part in parts], sequence)


def mixed_batch(parts: Sequence[FamilyPart], sequence: int) -> tuple[bytes, int]:
    """The same, for tables of several families."""
    out = [_message(_BATCH_BEGIN, _REQUEST, sequence, head(0, SUBSYSTEM))]
    for number, (family, kind, flags, body) in enumerate(parts, 1):
        acknowledge = _ACK if number == len(parts) else 0
        out.append(_message(kind_of(kind), _REQUEST | flags | acknowledge, sequence + number, head(family) + body))
    last = sequence + len(parts)
    out.append(_message(_BATCH_END, _REQUEST, last + 1, head(0, SUBSYSTEM)))
    return b"".join(out), last


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body
