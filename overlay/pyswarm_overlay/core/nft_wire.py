"""A sandbox's VIPs as nftables netlink messages, ready to send: pure bytes.

libnftables would do it too, but not here: a context kept for each sandbox holds 0.7 MB, and a context made for
each change costs 12 ms, since the kernel waits out a grace period when a netfilter socket closes after a change. One
plain socket per sandbox, kept open, takes a change in 0.1 ms.

The table of family ip: a NAT chain in the output hook leads 127.0.0.11:53 to our resolver and looks the destination up
in the verdict map `vips`; each VIP has a chain of its own that picks a backend by counting through (`numgen inc`),
whatever the protocol. The count starts at a place that differs from sandbox to sandbox: a hundred clients that each
send one request must not all reach the same backend. A VIP without backends refuses at once. With several backends, a
TCP packet that begins no connection belongs to one that was cut: nobody can tell to whom it went, so it is reset.

IPv6 has a table of family ip6 of the same name and shape, where the sandbox has an IPv6 address on a network. Not one
table of family inet: it would cost every sandbox the tracking of IPv6 connections.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2s
from ipaddress import ip_address
from operator import add

from . import nft_attributes as nft
from .nft_attributes import FamilyPart, attr, expression, mixed_batch, nest, text, u32

Part = FamilyPart
batch = mixed_batch

_HOOK_OUTPUT, DSTNAT_PRIORITY = 3, -100
_SET_ANONYMOUS, _SET_CONSTANT, _SET_MAP = 1, 2, 8
_TYPE_INTEGER, _TYPE_VERDICT = 4, 0xFFFFFF00
_GOTO = 0xFFFFFFFC
_VERDICT_REGISTER, _REGISTER = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_L4PROTO = 16
_EQUAL, _UNEQUAL = 0, 1
_TCP, _UDP = 6, 17
_TCP_FLAGS_OFFSET, _TCP_SYN = 13, 2
_REJECT_ICMP, _REJECT_RESET = 0, 1
_NAT_DESTINATION = 1
_ELEMENTS_PER_MESSAGE = 1000
# For `nft list ruleset` only: keys are numbers of this host, values are in network order.
_BYTE_ORDER = struct.pack("=BBIBBI", 0, 4, 1, 1, 4, 2)
RESOLVER = "127.0.0.11"
VIP_MAP = "vips"
OUTPUT = "output"


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """What differs between the two tables. There are two, so they are told apart by identity."""

    number: int
    address_type: int
    address_bytes: int
    destination_offset: int
    unreachable: int
    """The ICMP code that says so."""


_V4 = _Family(nft.IPV4, address_type=7, address_bytes=4, destination_offset=16, unreachable=1)
_V6 = _Family(nft.IPV6, address_type=8, address_bytes=16, destination_offset=24, unreachable=3)


def _family_of(address: str) -> _Family:
    return _V6 if ":" in address else _V4


def rotated(backends: Sequence[str], seed: str) -> list[str]:
    """The backends in order, beginning at a place that follows from `seed`."""
    if not backends:
        return []
    start = _turn(seed) % len(backends)
    return [*backends[start:], *backends[:start]]


@lru_cache(maxsize=1 << 14)
def _turn(seed: str) -> int:
    return int.from_bytes(blake2s(seed.encode(), digest_size=4).digest(), "big")


def vip_chain(vip: str) -> str:
    return "vip_" + vip.replace(".", "_").replace(":", "_")


def sandbox_table(
    table: str,
    seed: str,
    vips: Mapping[str, Sequence[str]],
    dns_ports: tuple[int, int],
    *,
    fresh: bool,
    ipv6: bool = False,
) -> list[Part]:
    """The whole table, and with `ipv6` the second one; not `fresh`: in place of those there may be."""
    parts = _empty_table(_V4, table, fresh=fresh)
    for protocol, port in ((_UDP, dns_ports[0]), (_TCP, dns_ports[1])):
        parts.append(_rule(_V4, table, OUTPUT, _resolver_rule(protocol, port)))
    parts.append(_rule(_V4, table, OUTPUT, [_destination(_V4), _lookup(VIP_MAP, _VERDICT_REGISTER)]))
    if ipv6:
        parts += _empty_table(_V6, table, fresh=fresh)
        parts.append(_rule(_V6, table, OUTPUT, [_destination(_V6), _lookup(VIP_MAP, _VERDICT_REGISTER)]))
    # A set has one number in the whole transaction, and each table's map of VIPs has the first one.
    for number, (vip, backends) in enumerate(vips.items(), 3):
        if ipv6 or _family_of(vip) is _V4:
            parts += put_vip(table, seed, vip, backends, exists=False, set_id=number)
    return parts


def _empty_table(family: _Family, table: str, *, fresh: bool) -> list[Part]:
    named = text(1, table)
    parts: list[Part] = [] if fresh else _without_table(family, table)
    parts.append((family.number, nft.NEWTABLE, nft.CREATE, named))
    hook = nest(4, u32(1, _HOOK_OUTPUT), attr(2, struct.pack(">i", DSTNAT_PRIORITY)))
    chain = named + text(3, OUTPUT) + hook + u32(5, 1) + text(7, "nat")
    parts.append((family.number, nft.NEWCHAIN, nft.CREATE, chain))
    key = u32(4, family.address_type) + u32(5, family.address_bytes)
    shape = u32(3, _SET_MAP) + key + u32(6, _TYPE_VERDICT) + u32(7, 0)
    number = 1 if family is _V4 else 2
    parts.append((family.number, nft.NEWSET, nft.CREATE, named + text(2, VIP_MAP) + shape + u32(10, number)))
    return parts


def without_ipv6_table(table: str) -> list[Part]:
    return _without_table(_V6, table)


def _without_table(family: _Family, table: str) -> list[Part]:
    """Making it first lets the removal succeed whether it is there or not."""
    named = text(1, table)
    return [(family.number, nft.NEWTABLE, nft.CREATE, named), (family.number, nft.DELTABLE, 0, named)]


def put_vip(table: str, seed: str, vip: str, backends: Sequence[str], *, exists: bool, set_id: int = 3) -> list[Part]:
    """Create a VIP, or replace the backends of one that exists. `set_id` must be unique within the transaction."""
    chain, family = vip_chain(vip), _family_of(vip)
    parts = [_without_rules(family, table, chain) if exists else _chain(family, nft.NEWCHAIN, table, chain)]
    parts += _backend_rules(family, table, chain, rotated(backends, seed), set_id)
    if not exists:
        parts.append(_vip_element(family, nft.NEWELEM, table, vip))
    return parts


def remove_vip(table: str, vip: str) -> list[Part]:
    chain, family = vip_chain(vip), _family_of(vip)
    return [
        _vip_element(family, nft.DELELEM, table, vip),
        _without_rules(family, table, chain),
        _chain(family, nft.DELCHAIN, table, chain),
    ]


# A change of a VIP is written in every sandbox of its network, and differs only in where the count begins: the parts
# that are the same are made once.


@lru_cache(maxsize=4096)
def _without_rules(family: _Family, table: str, chain: str) -> Part:
    return family.number, nft.DELRULE, 0, text(1, table) + text(2, chain)


def _backend_rules(family: _Family, table: str, chain: str, backends: Sequence[str], set_id: int) -> list[Part]:
    if not backends:
        return list(_refusing_rules(family, table, chain))
    if len(backends) == 1:
        return [_rule(family, table, chain, [_load(_packed(backends[0])), _translate(family)])]
    rules = _counting_rules(family, table, chain, len(backends), set_id)
    return [*_backend_map(family, table, backends, set_id), *rules]


@lru_cache(maxsize=1024)
def _refusing_rules(family: _Family, table: str, chain: str) -> tuple[Part, ...]:
    unreachable = u32(1, _REJECT_ICMP) + attr(2, bytes([family.unreachable]))
    return (
        _rule(family, table, chain, [*_only_tcp(), _reset()]),
        _rule(family, table, chain, [expression("reject", unreachable)]),
    )


@lru_cache(maxsize=1024)
def _counting_rules(family: _Family, table: str, chain: str, backends: int, set_id: int) -> tuple[Part, ...]:
    count = expression("numgen", u32(1, _REGISTER), u32(2, backends), u32(3, 0), u32(4, 0))
    pick = _lookup("__map%d", _REGISTER, set_id)
    return (
        _rule(family, table, chain, [*_only_tcp(), *_begins_nothing(), _reset()]),
        _rule(family, table, chain, [count, pick, _translate(family)]),
    )


def rules_of(backends: Sequence[str]) -> int:
    """How many rules the chain of a VIP has."""
    return 1 if len(backends) == 1 else 2


def _backend_map(family: _Family, table: str, backends: Sequence[str], set_id: int) -> list[Part]:
    """Number -> backend, as an anonymous map that goes with its rule."""
    parts, where = [_new_map(family, table, len(backends), set_id)], _map_name(table, set_id)
    keys = _number_keys(len(backends), family.address_bytes)
    elements = list(map(add, keys, map(_packed, backends)))
    for start in range(0, len(elements), _ELEMENTS_PER_MESSAGE):
        some = elements[start : start + _ELEMENTS_PER_MESSAGE]
        parts.append((family.number, nft.NEWELEM, nft.CREATE, where + nest(3, *some)))
    return parts


@lru_cache(maxsize=1024)
def _new_map(family: _Family, table: str, backends: int, set_id: int) -> Part:
    where = text(1, table) + text(2, "__map%d")
    flags = u32(3, _SET_ANONYMOUS | _SET_CONSTANT | _SET_MAP)
    shape = u32(4, _TYPE_INTEGER) + u32(5, 4) + u32(6, family.address_type) + u32(7, family.address_bytes)
    size = nest(9, u32(1, backends))
    made = where + flags + shape + size + u32(10, set_id) + attr(13, _BYTE_ORDER)
    return family.number, nft.NEWSET, nft.CREATE, made


@lru_cache(maxsize=1024)
def _map_name(table: str, set_id: int) -> bytes:
    return text(1, table) + text(2, "__map%d") + u32(4, set_id)


_DATA_HEADS = {size: nest(2, attr(1, bytes(size)))[:-size] for size in (4, 16)}
"""What stands before an address in the data of an element."""


@cache
def _number_key(number: int, address_bytes: int) -> bytes:
    """What stands before the backend in one element, whose length is always the same within a map."""
    key = nest(1, attr(1, struct.pack("=I", number)))
    head = _DATA_HEADS[address_bytes]
    return nest(1, key + head + bytes(address_bytes))[: 4 + len(key)] + head


@lru_cache(maxsize=64)
def _number_keys(count: int, address_bytes: int) -> tuple[bytes, ...]:
    return tuple(_number_key(number, address_bytes) for number in range(count))


@lru_cache(maxsize=1 << 16)
def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _vip_element(family: _Family, kind: int, table: str, vip: str) -> Part:
    key = nest(1, attr(1, _packed(vip)))
    verdict = nest(2, nest(2, u32(1, _GOTO) + text(2, vip_chain(vip))))
    element = nest(1, key + (verdict if kind == nft.NEWELEM else b""))
    flags = nft.CREATE if kind == nft.NEWELEM else 0
    return family.number, kind, flags, text(1, table) + text(2, VIP_MAP) + nest(3, element)


def _chain(family: _Family, kind: int, table: str, chain: str) -> Part:
    return family.number, kind, nft.CREATE if kind == nft.NEWCHAIN else 0, text(1, table) + text(3, chain)


def _rule(family: _Family, table: str, chain: str, expressions: Sequence[bytes]) -> Part:
    body = text(1, table) + text(2, chain) + nest(4, *expressions)
    return family.number, nft.NEWRULE, nft.CREATE | nft.APPEND, body


def _resolver_rule(protocol: int, port: int) -> list[bytes]:
    to_port = u32(1, 2) + nest(2, attr(1, struct.pack(">H", port)))
    both = u32(1, _NAT_DESTINATION) + u32(2, nft.IPV4) + u32(3, _REGISTER) + u32(4, _REGISTER) + u32(5, 2) + u32(6, 2)
    return [
        _destination(_V4),
        _equal(_packed(RESOLVER)),
        *_protocol(protocol),
        _payload(_TRANSPORT_HEADER, 2, 2),
        _equal(struct.pack(">H", 53)),
        _load(_packed(RESOLVER)),
        expression("immediate", to_port),
        expression("nat", both),
    ]


def _protocol(number: int) -> list[bytes]:
    return [expression("meta", u32(1, _REGISTER), u32(2, _META_L4PROTO)), _equal(bytes([number]))]


def _only_tcp() -> list[bytes]:
    return _protocol(_TCP)


def _begins_nothing() -> list[bytes]:
    """A packet without SYN."""
    value, nothing = bytes([_TCP_SYN]), bytes(1)
    operands = u32(1, _REGISTER), u32(2, _REGISTER), u32(3, 1), nest(4, attr(1, value)), nest(5, attr(1, nothing))
    return [_payload(_TRANSPORT_HEADER, _TCP_FLAGS_OFFSET, 1), expression("bitwise", *operands), _equal(nothing)]


def _reset() -> bytes:
    return expression("reject", u32(1, _REJECT_RESET))


def _destination(family: _Family) -> bytes:
    return _payload(_NETWORK_HEADER, family.destination_offset, family.address_bytes)


def _payload(header: int, offset: int, length: int) -> bytes:
    return expression("payload", u32(1, _REGISTER), u32(2, header), u32(3, offset), u32(4, length))


def _equal(value: bytes) -> bytes:
    return expression("cmp", u32(1, _REGISTER), u32(2, _EQUAL), nest(3, attr(1, value)))


def _load(value: bytes) -> bytes:
    return expression("immediate", u32(1, _REGISTER), nest(2, attr(1, value)))


def _lookup(name: str, register: int, set_id: int | None = None) -> bytes:
    by_id = b"" if set_id is None else u32(4, set_id)
    return expression("lookup", text(1, name), u32(2, _REGISTER), u32(3, register) + by_id)


def _translate(family: _Family) -> bytes:
    operands = u32(1, _NAT_DESTINATION), u32(2, family.number), u32(3, _REGISTER), u32(4, _REGISTER)
    return expression("nat", *operands)
