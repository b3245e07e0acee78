"""A sandbox's nftables rules as netlink messages, ready to send: pure bytes.

libnftables would do it too, but not here: a context kept for each sandbox holds 0.7 MB, and a context made for
each change costs 12 ms, since the kernel waits out a grace period when a netfilter socket closes after a change. One
plain socket per sandbox, kept open, takes a change in 0.1 ms.

The table: a NAT chain in the output hook leads 127.0.0.11:53 to our resolver and looks the destination up in the
verdict map `vips`; each VIP has a chain of its own that picks a backend by counting through (`numgen inc`). The count
starts at a place that differs from sandbox to sandbox: a hundred clients that each send one request must not all reach
the same backend. A VIP without backends refuses at once.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from hashlib import blake2s
from ipaddress import IPv4Address

Part = tuple[int, int, bytes]
"""Message type, flags, body."""

_NFTABLES = 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE, _NEWSET, _NEWELEM, _DELELEM = (
    0,
    2,
    3,
    5,
    6,
    8,
    9,
    12,
    14,
)
_BATCH_BEGIN, _BATCH_END = 16, 17
_REQUEST, _ACK, _CREATE, _APPEND = 1, 4, 0x400, 0x800
_IPV4 = 2
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_NFGEN = struct.Struct(">BBH")

_HOOK_OUTPUT, DSTNAT_PRIORITY = 3, -100
_SET_ANONYMOUS, _SET_CONSTANT, _SET_MAP = 1, 2, 8
_TYPE_INTEGER, _TYPE_IPADDR, _TYPE_VERDICT = 4, 7, 0xFFFFFF00
_GOTO = 0xFFFFFFFC
_VERDICT_REGISTER, _REGISTER = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_L4PROTO = 16
_TCP, _UDP = 6, 17
_REJECT_ICMP, _REJECT_RESET, _ICMP_HOST_UNREACHABLE = 0, 1, 1
_NAT_DESTINATION = 1
_ELEMENTS_PER_MESSAGE = 1000
# For `nft list ruleset` only: keys are numbers of this host, values are in network order.
_BYTE_ORDER = struct.pack("=BBIBBI", 0, 4, 1, 1, 4, 2)
RESOLVER = "127.0.0.11"
VIP_MAP = "vips"
OUTPUT = "output"


def rotated(backends: Sequence[str], seed: str) -> list[str]:
    """The backends in order, beginning at a place that follows from `seed`."""
    if not backends:
        return []
    start = int.from_bytes(blake2s(seed.encode(), digest_size=4).digest(), "big") % len(backends)
    return [*backends[start:], *backends[:start]]


def vip_chain(vip: str) -> str:
    return "vip_" + vip.replace(".", "_")


def is_supported(vip: str) -> bool:
    """The table is of family ip; IPv6 VIPs will get one of their own."""
    return ":" not in vip


def batch(parts: Sequence[Part], sequence: int) -> tuple[bytes, int]:
    """One transaction whose messages count up from `sequence`; its last change is acknowledged."""
    header = _NFGEN.pack(0, 0, _NFTABLES)
    out = [_message(_BATCH_BEGIN, _REQUEST, sequence, header)]
    for number, (kind, flags, body) in enumerate(parts, 1):
        acknowledge = _ACK if number == len(parts) else 0
        message_type = _NFTABLES << 8 | kind
        out.append(
            _message(message_type, _REQUEST | flags | acknowledge, sequence + number, _NFGEN.pack(_IPV4, 0, 0) + body)
        )
    last = sequence + len(parts)
    out.append(_message(_BATCH_END, _REQUEST, last + 1, header))
    return b"".join(out), last


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def sandbox_table(
    table: str, seed: str, vips: Mapping[str, Sequence[str]], dns_ports: tuple[int, int], *, fresh: bool
) -> list[Part]:
    """The whole table; not `fresh`: in place of the one there may be."""
    named = _text(1, table)
    parts: list[Part] = [(_NEWTABLE, _CREATE, named)]
    if not fresh:
        parts += [(_DELTABLE, 0, named), (_NEWTABLE, _CREATE, named)]
    hook = _nest(4, _u32(1, _HOOK_OUTPUT), _attr(2, struct.pack(">i", DSTNAT_PRIORITY)))
    parts.append((_NEWCHAIN, _CREATE, named + _text(3, OUTPUT) + hook + _u32(5, 1) + _text(7, "nat")))
    shape = _u32(3, _SET_MAP) + _u32(4, _TYPE_IPADDR) + _u32(5, 4) + _u32(6, _TYPE_VERDICT) + _u32(7, 0)
    parts.append((_NEWSET, _CREATE, named + _text(2, VIP_MAP) + shape + _u32(10, 1)))
    for protocol, port in ((_UDP, dns_ports[0]), (_TCP, dns_ports[1])):
        parts.append(_rule(table, OUTPUT, _resolver_rule(protocol, port)))
    parts.append(_rule(table, OUTPUT, [_destination(), _lookup(VIP_MAP, _VERDICT_REGISTER)]))
    for number, (vip, backends) in enumerate(vips.items(), 2):
        parts += put_vip(table, seed, vip, backends, exists=False, set_id=number)
    return parts


def put_vip(table: str, seed: str, vip: str, backends: Sequence[str], *, exists: bool, set_id: int = 2) -> list[Part]:
    """Create a VIP, or replace the backends of one that exists. `set_id` must be unique within the transaction."""
    if not is_supported(vip):
        return []
    chain = vip_chain(vip)
    where = _text(1, table) + _text(2, chain)
    parts: list[Part] = [(_DELRULE, 0, where) if exists else _chain(_NEWCHAIN, table, chain)]
    parts += _backend_rules(table, chain, rotated(backends, seed), set_id)
    if not exists:
        parts.append(_vip_element(_NEWELEM, table, vip, chain))
    return parts


def remove_vip(table: str, vip: str) -> list[Part]:
    if not is_supported(vip):
        return []
    chain = vip_chain(vip)
    where = _text(1, table) + _text(2, chain)
    return [_vip_element(_DELELEM, table, vip, chain), (_DELRULE, 0, where), _chain(_DELCHAIN, table, chain)]


def _backend_rules(table: str, chain: str, backends: Sequence[str], set_id: int) -> list[Part]:
    if not backends:
        reset = _u32(1, _REJECT_RESET)
        unreachable = _u32(1, _REJECT_ICMP) + _attr(2, bytes([_ICMP_HOST_UNREACHABLE]))
        only_tcp = [
            _expression("meta", _u32(1, _REGISTER) + _u32(2, _META_L4PROTO)),
            _equal(bytes([_TCP])),
        ]
        return [
            _rule(table, chain, [*only_tcp, _expression("reject", reset)]),
            _rule(table, chain, [_expression("reject", unreachable)]),
        ]
    if len(backends) == 1:
        return [_rule(table, chain, [_load(_packed(backends[0])), _translate()])]
    count = _expression("numgen", _u32(1, _REGISTER) + _u32(2, len(backends)) + _u32(3, 0) + _u32(4, 0))
    pick = _lookup("__map%d", _REGISTER, set_id)
    return [*_backend_map(table, backends, set_id), _rule(table, chain, [count, pick, _translate()])]


def _backend_map(table: str, backends: Sequence[str], set_id: int) -> list[Part]:
    """Number -> backend, as an anonymous map that goes with its rule."""
    where = _text(1, table) + _text(2, "__map%d")
    flags = _u32(3, _SET_ANONYMOUS | _SET_CONSTANT | _SET_MAP)
    shape = _u32(4, _TYPE_INTEGER) + _u32(5, 4) + _u32(6, _TYPE_IPADDR) + _u32(7, 4)
    size = _nest(9, _u32(1, len(backends)))
    parts: list[Part] = [(_NEWSET, _CREATE, where + flags + shape + size + _u32(10, set_id) + _attr(13, _BYTE_ORDER))]
    elements = [_number_key(number) + _backend_data(backend) for number, backend in enumerate(backends)]
    for start in range(0, len(elements), _ELEMENTS_PER_MESSAGE):
        some = elements[start : start + _ELEMENTS_PER_MESSAGE]
        parts.append((_NEWELEM, _CREATE, where + _u32(4, set_id) + _nest(3, *some)))
    return parts


@cache
def _number_key(number: int) -> bytes:
    """The head of one element, whose length is always the same."""
    key = _nest(1, _attr(1, struct.pack("=I", number)))
    return _ATTR.pack(4 + len(key) + 12, 1 | _NESTED) + key


@lru_cache(maxsize=1 << 16)
def _packed(address: str) -> bytes:
    return IPv4Address(address).packed


def _backend_data(backend: str) -> bytes:
    return b"\x0c\x00\x02\x80\x08\x00\x01\x00" + _packed(backend)


def _vip_element(kind: int, table: str, vip: str, chain: str) -> Part:
    key = _nest(1, _attr(1, _packed(vip)))
    verdict = _nest(2, _nest(2, _u32(1, _GOTO) + _text(2, chain)))
    element = _nest(1, key + (verdict if kind == _NEWELEM else b""))
    return kind, _CREATE if kind == _NEWELEM else 0, _text(1, table) + _text(2, VIP_MAP) + _nest(3, element)


def _chain(kind: int, table: str, chain: str) -> Part:
    return kind, _CREATE if kind == _NEWCHAIN else 0, _text(1, table) + _text(3, chain)


def _rule(table: str, chain: str, expressions: Sequence[bytes]) -> Part:
    return _NEWRULE, _CREATE | _APPEND, _text(1, table) + _text(2, chain) + _nest(4, *expressions)


def _resolver_rule(protocol: int, port: int) -> list[bytes]:
    to_port = _u32(1, 2) + _nest(2, _attr(1, struct.pack(">H", port)))
    both = (
        _u32(1, _NAT_DESTINATION) + _u32(2, _IPV4) + _u32(3, _REGISTER) + _u32(4, _REGISTER) + _u32(5, 2) + _u32(6, 2)
    )
    return [
        _destination(),
        _equal(_packed(RESOLVER)),
        _expression("meta", _u32(1, _REGISTER) + _u32(2, _META_L4PROTO)),
        _equal(bytes([protocol])),
        _expression("payload", _u32(1, _REGISTER) + _u32(2, _TRANSPORT_HEADER) + _u32(3, 2) + _u32(4, 2)),
        _equal(struct.pack(">H", 53)),
        _load(_packed(RESOLVER)),
        _expression("immediate", to_port),
        _expression("nat", both),
    ]


def _destination() -> bytes:
    offset_of_destination, length = 16, 4
    return _expression(
        "payload", _u32(1, _REGISTER) + _u32(2, _NETWORK_HEADER) + _u32(3, offset_of_destination) + _u32(4, length)
    )


def _equal(value: bytes) -> bytes:
    return _expression("cmp", _u32(1, _REGISTER) + _u32(2, 0) + _nest(3, _attr(1, value)))


def _load(value: bytes) -> bytes:
    return _expression("immediate", _u32(1, _REGISTER) + _nest(2, _attr(1, value)))


def _lookup(name: str, register: int, set_id: int | None = None) -> bytes:
    by_id = b"" if set_id is None else _u32(4, set_id)
    return _expression("lookup", _text(1, name) + _u32(2, _REGISTER) + _u32(3, register) + by_id)


def _translate() -> bytes:
    return _expression("nat", _u32(1, _NAT_DESTINATION) + _u32(2, _IPV4) + _u32(3, _REGISTER) + _u32(4, _REGISTER))


def _expression(name: str, data: bytes) -> bytes:
    return _nest(1, _text(1, name) + _nest(2, data))


def _attr(kind: int, payload: bytes) -> bytes:
    return _ATTR.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _nest(kind: int, *parts: bytes) -> bytes:
    return _attr(kind | _NESTED, b"".join(parts))


def _u32(kind: int, value: int) -> bytes:
    return struct.pack("=HH", 8, kind) + struct.pack(">I", value)


def _text(kind: int, value: str) -> bytes:
    return _attr(kind, value.encode() + b"\0")
