"""A sandbox's policy as netlink messages, ready to send, and what the kernel says of it read back. Pure bytes.

The table is of family inet and has one chain in the input hook:

    loopback                                    accept   what it says to itself, our probes, our resolver
    answers (ct direction reply, ct related)    accept   whoever is asked may answer
    IPv6 neighbours and routers                 accept   without them there is no network
    TCP resets                                  accept   so that this side hears of a connection that was refused
    interface . source address in from4, from6  accept
    interface in open                           accept
    all else                                    count, refuse at once

Connections that others opened are looked up packet by packet, also established ones: who loses permission is cut with
the next packet, without a look at the table of connections.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address

from .nft_attributes import (
    APPEND,
    CREATE,
    DELELEM,
    DELTABLE,
    NEWCHAIN,
    NEWELEM,
    NEWOBJ,
    NEWRULE,
    NEWSET,
    NEWTABLE,
    Part,
    attr,
    expression,
    nest,
    text,
    u32,
)
from .policy import Policy

CHAIN = "input"
COUNTER = "refused"
FROM4, FROM6, OPEN = "from4", "from6", "open"
SETS = (FROM4, FROM6, OPEN)

_HOOK_INPUT, _PRIORITY_FILTER = 1, 0
_TYPE_IPV4, _TYPE_IPV6, _TYPE_INTERFACE, _TYPE_BITS = 7, 8, 41, 6
_INTERFACE_BYTES = 16
_FIRST, _SECOND, _VERDICT = 1, 2, 0
_ACCEPT = 1
_EQUAL, _UNEQUAL = 0, 1
_META_PROTOCOL, _META_L4PROTO, _META_IIFNAME = 15, 16, 6
_CT_STATE, _CT_DIRECTION = 0, 1
_REPLY, _RELATED = b"\1", struct.pack("=I", 4)
_NETWORK, _TRANSPORT = 1, 2
_IPV4, _IPV6 = b"\2", b"\x0a"
_TCP, _ICMPV6 = b"\6", b"\x3a"
_ND_FIRST, _ND_LAST = 133, 137
_TCP_RST = b"\4"
_TCP_FLAGS_OFFSET = 13
_REJECT_RESET, _REJECT_ICMPX, _ADMIN_PROHIBITED = 1, 2, 3
_OBJECT_COUNTER = 1
_ELEMENTS_PER_MESSAGE = 1000

_SHAPES = {
    FROM4: (_TYPE_INTERFACE << _TYPE_BITS | _TYPE_IPV4, _INTERFACE_BYTES + 4),
    FROM6: (_TYPE_INTERFACE << _TYPE_BITS | _TYPE_IPV6, _INTERFACE_BYTES + 16),
    OPEN: (_TYPE_INTERFACE, _INTERFACE_BYTES),
}
_SOURCE = {FROM4: (_IPV4, 12, 4), FROM6: (_IPV6, 8, 16)}
"""Protocol, and where its header has the source address."""


def keys_of(policy: Policy) -> dict[str, frozenset[bytes]]:
    """What each set holds."""
    found: dict[str, set[bytes]] = {name: set() for name in SETS}
    for interface, address in policy.sources:
        packed = _packed(address)
        found[FROM4 if len(packed) == 4 else FROM6].add(_interface(interface) + packed)
    found[OPEN] = {_interface(name) for name in policy.open}
    return {name: frozenset(keys) for name, keys in found.items()}


@lru_cache(maxsize=1 << 16)
def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _interface(name: str) -> bytes:
    return name.encode().ljust(_INTERFACE_BYTES, b"\0")


def whole_table(table: str, policy: Policy) -> list[Part]:
    """In place of the one there may be."""
    named = text(1, table)
    parts: list[Part] = [(NEWTABLE, CREATE, named), (DELTABLE, 0, named), (NEWTABLE, CREATE, named)]
    hook = nest(4, u32(1, _HOOK_INPUT), attr(2, struct.pack(">i", _PRIORITY_FILTER)))
    parts.append((NEWCHAIN, CREATE, named + text(3, CHAIN) + hook + u32(5, _ACCEPT) + text(7, "filter")))
    parts.append((NEWOBJ, CREATE, named + text(2, COUNTER) + u32(3, _OBJECT_COUNTER) + nest(4)))
    for number, (name, (kind, length)) in enumerate(_SHAPES.items(), 1):
        shape = text(2, name) + u32(3, 0) + u32(4, kind) + u32(5, length) + u32(10, number)
        parts.append((NEWSET, CREATE, named + shape))
    parts += [(NEWRULE, CREATE | APPEND, named + text(2, CHAIN) + nest(4, *rule)) for rule in _rules()]
    for name, keys in keys_of(policy).items():
        parts += _elements(NEWELEM, table, name, keys)
    return parts


def change(table: str, before: Policy, after: Policy) -> list[Part]:
    """What leads from one policy to the next: elements of sets only."""
    old, new = keys_of(before), keys_of(after)
    parts: list[Part] = []
    for name in SETS:
        parts += _elements(DELELEM, table, name, old[name] - new[name])
        parts += _elements(NEWELEM, table, name, new[name] - old[name])
    return parts


def without_table(table: str) -> list[Part]:
    """Making it first lets the removal succeed whether it is there or not."""
    return [(NEWTABLE, CREATE, text(1, table)), (DELTABLE, 0, text(1, table))]


def _elements(kind: int, table: str, name: str, keys: Collection[bytes]) -> list[Part]:
    ordered = sorted(keys)
    flags = CREATE if kind == NEWELEM else 0
    where = text(1, table) + text(2, name)
    chunks = [ordered[start : start + _ELEMENTS_PER_MESSAGE] for start in range(0, len(ordered), _ELEMENTS_PER_MESSAGE)]
    return [(kind, flags, where + nest(3, *(nest(1, nest(1, attr(1, key))) for key in some))) for some in chunks]


def _rules() -> Iterable[Sequence[bytes]]:
    accept = expression("immediate", u32(1, _VERDICT), nest(2, nest(2, u32(1, _ACCEPT))))
    count = expression("objref", u32(1, _OBJECT_COUNTER), text(2, COUNTER))
    reset = expression("reject", u32(1, _REJECT_RESET))
    prohibited = expression("reject", u32(1, _REJECT_ICMPX), attr(2, bytes([_ADMIN_PROHIBITED])))
    yield _meta(_META_IIFNAME), _compare(_interface("lo")), accept
    yield _connection(_CT_DIRECTION), _compare(_REPLY), accept
    yield _connection(_CT_STATE), _masked(_RELATED), _compare(bytes(4), _UNEQUAL), accept
    yield *_protocol(_ICMPV6), _payload(_TRANSPORT, 0, 1), _range(_ND_FIRST, _ND_LAST), accept
    reset_flag = (_payload(_TRANSPORT, _TCP_FLAGS_OFFSET, 1), _masked(_TCP_RST), _compare(b"\0", _UNEQUAL))
    yield *_protocol(_TCP), *reset_flag, accept
    for name, (protocol, offset, length) in _SOURCE.items():
        load = (_meta(_META_IIFNAME), _payload(_NETWORK, offset, length, _SECOND))
        yield _meta(_META_PROTOCOL), _compare(protocol), *load, _lookup(name), accept
    yield _meta(_META_IIFNAME), _lookup(OPEN), accept
    yield *_protocol(_TCP), count, reset
    yield count, prohibited


def _meta(key: int) -> bytes:
    return expression("meta", u32(1, _FIRST), u32(2, key))


def _protocol(number: bytes) -> tuple[bytes, bytes]:
    return _meta(_META_L4PROTO), _compare(number)


def _connection(key: int) -> bytes:
    return expression("ct", u32(1, _FIRST), u32(2, key))


def _payload(base: int, offset: int, length: int, register: int = _FIRST) -> bytes:
    return expression("payload", u32(1, register), u32(2, base), u32(3, offset), u32(4, length))


def _masked(mask: bytes) -> bytes:
    zero = bytes(len(mask))
    bits = (nest(4, attr(1, mask)), nest(5, attr(1, zero)))
    return expression("bitwise", u32(1, _FIRST), u32(2, _FIRST), u32(3, len(mask)), *bits)


def _compare(value: bytes, how: int = _EQUAL) -> bytes:
    return expression("cmp", u32(1, _FIRST), u32(2, how), nest(3, attr(1, value)))


def _range(low: int, high: int) -> bytes:
    bounds = (nest(3, attr(1, bytes([low]))), nest(4, attr(1, bytes([high]))))
    return expression("range", u32(1, _FIRST), u32(2, _EQUAL), *bounds)


def _lookup(name: str) -> bytes:
    return expression("lookup", text(1, name), u32(2, _FIRST))
