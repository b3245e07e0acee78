"""DNS messages: read a query, write an answer. Bytes in, bytes out; any input is survived.

Only what a stub resolver sends is read: one question, uncompressed, perhaps an EDNS record. A general library takes
several times longer per query than everything else together; the tests hold this one against dnspython.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

HEADER = struct.Struct(">HHHHHH")
_QUESTION = struct.Struct(">HH")
_RECORD = struct.Struct(">HHIH")
_SERVICE = struct.Struct(">HHH")

A, PTR, AAAA, SRV, OPT, ANY = 1, 12, 28, 33, 41, 255
CLASS_IN, CLASS_ANY = 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 1, 2, 3, 4

_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_OPCODE_MASK = 0x7800
TTL_S = 1
MIN_UDP = 512
MAX_UDP = 1232
"""What we promise to receive and ever send by UDP: never fragmented on a usual path."""
MAX_MESSAGE = 65535
_MAX_NAME = 255
_OUR_OPT = b"\0" + _RECORD.pack(OPT, MAX_UDP, 0, 0)
_BAD_VERSION_OPT = b"\0" + _RECORD.pack(OPT, MAX_UDP, 1 << 24, 0)  # BADVERS is 16: its upper bits are here
_TO_QUESTION = b"\xc0\x0c"


@dataclass(frozen=True, slots=True)
class Query:
    """A query that can be answered. `question` is the question section as it came, capitals and all."""

    id: int
    flags: int
    name: str
    """Lower case, without the final dot."""
    kind: int
    kind_class: int
    question: bytes
    edns: bool
    udp_size: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A query that cannot be answered: `reply` goes back, if there is one."""

    reply: bytes | None


def parse(packet: bytes) -> Query | Bad:
    """Never raises."""
    if len(packet) < HEADER.size or len(packet) > MAX_MESSAGE:
        return Bad(None)
    ident, flags, questions, answers, authorities, extra = HEADER.unpack_from(packet)
    if flags & _QR:
        return Bad(None)  # an answer; answering answers would let two servers talk for ever
    if flags & _OPCODE_MASK:
        return Bad(_header_only(ident, flags, NOTIMP))
    if questions != 1 or answers or authorities:
        return Bad(_header_only(ident, flags, FORMERR))
    read = _read_name(packet, HEADER.size)
    if read is None or read[1] + _QUESTION.size > len(packet):
        return Bad(_header_only(ident, flags, FORMERR))
    name, offset = read
    kind, kind_class = _QUESTION.unpack_from(packet, offset)
    end = offset + _QUESTION.size
    size, version = _edns(packet, end, extra)
    udp_size = MIN_UDP if size is None else min(max(size, MIN_UDP), MAX_UDP)
    question = packet[HEADER.size : end]
    if version:
        head = HEADER.pack(ident, _QR | (flags & _RD) | _RA, 1, 0, 0, 1)
        return Bad(head + question + _BAD_VERSION_OPT)
    return Query(ident, flags, name, kind, kind_class, question, size is not None, udp_size)


def _read_name(packet: bytes, offset: int) -> tuple[str, int] | None:
    """An uncompressed name and where it ends."""
    labels: list[str] = []
    start = offset
    while offset < len(packet):
        length = packet[offset]
        offset += 1
        if length == 0:
            return ".".join(labels), offset
        if length > 63 or offset + length > len(packet) or offset + length - start > _MAX_NAME:
            return None
        labels.append(packet[offset : offset + length].lower().decode("latin-1"))
        offset += length
    return None


def _edns(packet: bytes, offset: int, records: int) -> tuple[int | None, int]:
    """The sender's UDP size and EDNS version, if its first additional record says so, as with every stub resolver."""
    if records and packet[offset : offset + 1] == b"\0" and offset + 1 + _RECORD.size <= len(packet):
        kind, size, settings, _length = _RECORD.unpack_from(packet, offset + 1)
        if kind == OPT:
            return int(size), settings >> 16 & 0xFF
    return None, 0


def _header_only(ident: int, flags: int, rcode: int) -> bytes:
    return HEADER.pack(ident, _QR | (flags & (_OPCODE_MASK | _RD)) | _RA | rcode, 0, 0, 0, 0)


def reply(
    query: Query,
    rcode: int,
    records: Sequence[tuple[int, bytes]] = (),
    limit: int = MAX_MESSAGE,
    more: Sequence[tuple[bytes, tuple[int, bytes]]] = (),
) -> bytes:
    """An answer; whole records that do not fit into `limit` are left out and the answer is marked truncated.

    `more` are records of other names, which clients may ask for: those that do not fit are left out silently.
    """
    opt = _OUR_OPT if query.edns else b""
    room = limit - HEADER.size - len(query.question) - len(opt)
    body = bytearray()
    count = 0
    for kind, data in records:
        record = _record(_TO_QUESTION, kind, data)
        if len(body) + len(record) > room:
            break
        body += record
        count += 1
    extra = 1 if opt else 0
    for owner, (kind, data) in more:
        record = _record(owner, kind, data)
        if count < len(records) or len(body) + len(record) > room:
            break
        body += record
        extra += 1
    flags = _QR | _AA | (query.flags & _RD) | _RA | rcode
    if count < len(records):
        flags |= _TC
    return HEADER.pack(query.id, flags, 1, count, 0, extra) + query.question + bytes(body) + opt


def _record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + _RECORD.pack(kind, CLASS_IN, TTL_S, len(data)) + data


def truncated(query: Query) -> bytes:
    """Ask again by TCP."""
    flags = _QR | (query.flags & _RD) | _RA | _TC
    return HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.question


def with_id(packet: bytes, ident: int) -> bytes:
    """The same message under another id."""
    return ident.to_bytes(2, "big") + packet[2:]


def answers(packet: bytes, ident: int, question: bytes) -> bool:
    """Whether `packet` is a response to our forwarded query: same id, same question (capitals aside)."""
    if len(packet) < HEADER.size or int.from_bytes(packet[:2], "big") != ident or not packet[2] & 0x80:
        return False
    if int.from_bytes(packet[4:6], "big") == 0:
        return packet[3] & 0x0F != NOERROR  # an error may leave the question out
    return packet[HEADER.size : HEADER.size + len(question)].lower() == question.lower()


def is_truncated(packet: bytes) -> bool:
    return bool(packet[2] & 0x02)


def address_record(address: str) -> tuple[int, bytes]:
    parsed = ip_address(address)
    return (A if parsed.version == 4 else AAAA), parsed.packed


def encode_name(name: str) -> bytes | None:
    """The name on the wire; None when it cannot be written."""
    labels = [label.encode("utf-8", "replace") for label in name.split(".") if label]
    if not labels or any(len(label) > 63 for label in labels):
        return None
    data = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return data if len(data) <= _MAX_NAME else None


def name_record(name: str) -> tuple[int, bytes] | None:
    """A PTR record; None when the name cannot be written."""
    data = encode_name(name)
    return None if data is None else (PTR, data)


def service_record(port: int, target: bytes) -> tuple[int, bytes]:
    """An SRV record; all targets are as good as one another."""
    return SRV, _SERVICE.pack(0, 0, port) + target


def reverse_address(name: str) -> str | None:
    """The address that a name under in-addr.arpa or ip6.arpa stands for."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return str(IPv4Address(".".join(reversed(labels[:4]))))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            digits = "".join(reversed(labels[:32]))
            return str(IPv6Address(":".join(digits[start : start + 4] for start in range(0, 32, 4))))
    except ValueError:
        return None
    return None
