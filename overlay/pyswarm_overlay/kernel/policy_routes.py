"""Rules and routes outside the main table, and routes to single devices: messages and dumps.

Blocking only where it reads. Our rules are told by their priorities, our routes by their tables.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pyswarm_overlay.core.attributes import attributes

from .netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message, Netlink, attr, u32

_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_FRA_DST, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 1, 4, 6, 10, 15, 16
_TO_TABLE, _GOTO, _NOP = 1, 2, 3
_INVERTED = 2
_MAIN, _STATIC, _UNIVERSE, _ON_LINK, _UNICAST = 254, 4, 0, 253, 1
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """One rule of one family. It leads to `table`, or on to the priority `goto`; with neither it does nothing."""

    family: int
    priority: int
    mark: int = 0
    mask: int = 0
    to: str = ""
    table: int = 0
    goto: int = 0
    is_inverted: bool = False


@dataclass(frozen=True, slots=True, order=True)
class TableRoute:
    """The one route of a table of its own: everything through `gateway` on the interface `index`."""

    family: int
    table: int
    gateway: str
    index: int


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def new_device_route(index: int, address: str) -> Message:
    """One address behind an interface."""
    packed = ip_address(address).packed
    head = _RTMSG.pack(family_of(address), 8 * len(packed), 0, 0, _MAIN, _STATIC, _UNIVERSE, _UNICAST, 0)
    body = head + attr(_RTA_DST, packed) + u32(_RTA_OIF, index)
    return Message(f"route {address}", _NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)


def read_device_routes(netlink: Netlink, index: int, family: int) -> set[str]:
    """The single addresses that the main table leads to an interface."""
    found: set[str] = set()
    for body in netlink.dump(Message("list routes", _GETROUTE, 0, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))):
        values = attributes(body, _RTMSG.size)
        target = values.get(_RTA_DST, b"")
        leaves_by = int.from_bytes(values.get(_RTA_OIF, b""), "little")
        if body[4] == _MAIN and leaves_by == index and body[1] == 8 * len(target) > 0:
            found.add(str(ip_address(target)))
    return found


def new_route(route: TableRoute) -> Message:
    return Message(f"return through {route.gateway}", _NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route(route))


def delete_route(route: TableRoute) -> Message:
    return Message(f"no return through {route.gateway}", _DELROUTE, 0, _route(route), (errno.ESRCH, errno.ENODEV))


def _route(route: TableRoute) -> bytes:
    head = _RTMSG.pack(route.family, 0, 0, 0, 0, _STATIC, _UNIVERSE, _UNICAST, 0)
    packed = ip_address(route.gateway).packed
    return head + attr(_RTA_GATEWAY, packed) + u32(_RTA_OIF, route.index) + u32(_RTA_TABLE, route.table)


def read_routes(netlink: Netlink, low: int, high: int) -> set[TableRoute]:
    """The routes of the tables from `low` to `high`."""
    found: set[TableRoute] = set()
    for family in _FAMILIES:
        for body in netlink.dump(Message("list routes", _GETROUTE, 0, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))):
            values = attributes(body, _RTMSG.size)
            table = int.from_bytes(values.get(_RTA_TABLE, b""), "little")
            if low <= table <= high:
                gateway = values.get(_RTA_GATEWAY, b"")
                index = int.from_bytes(values.get(_RTA_OIF, b""), "little")
                found.add(TableRoute(family, table, str(ip_address(gateway)) if gateway else "", index))
    return found


def new_rule(rule: Rule) -> Message:
    return Message(
        f"rule {rule.priority} of mark {rule.mark:#x}",
        _NEWRULE,
        NLM_F_CREATE | NLM_F_EXCL,
        _rule(rule),
        (errno.EEXIST,),
    )


def delete_rule(rule: Rule) -> Message:
    return Message(f"no rule {rule.priority} of mark {rule.mark:#x}", _DELRULE, 0, _rule(rule), (errno.ENOENT,))


def _rule(rule: Rule) -> bytes:
    action = _TO_TABLE if rule.table else _GOTO if rule.goto else _NOP
    network = ip_network(rule.to) if rule.to else None
    flags = _INVERTED if rule.is_inverted else 0
    length = 0 if network is None else network.prefixlen
    body = _RTMSG.pack(rule.family, length, 0, 0, 0, 0, 0, action, flags) + u32(_FRA_PRIORITY, rule.priority)
    if network is not None:
        body += attr(_FRA_DST, network.network_address.packed)
    if rule.mask:
        body += u32(_FRA_FWMARK, rule.mark) + u32(_FRA_FWMASK, rule.mask)
    if rule.table:
        body += u32(_FRA_TABLE, rule.table)
    if rule.goto:
        body += u32(_FRA_GOTO, rule.goto)
    return body


def read_rules(netlink: Netlink, priorities: Collection[int]) -> list[Rule]:
    """The rules at these priorities, also such as stand there twice."""
    found: list[Rule] = []
    for family in _FAMILIES:
        head = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in netlink.dump(Message("list rules", _GETRULE, 0, head)):
            rule = _parse_rule(body)
            if rule.family == family and rule.priority in priorities:
                found.append(rule)
    return found


def _parse_rule(body: bytes) -> Rule:
    values = attributes(body, _RTMSG.size)
    family, length, *_rest, action, flags = _RTMSG.unpack_from(body)
    numbers = {
        kind: int.from_bytes(values.get(kind, b""), "little") for kind in (_FRA_PRIORITY, _FRA_FWMARK, _FRA_FWMASK)
    }
    target = values.get(_FRA_DST, b"")
    return Rule(
        family=family,
        priority=numbers[_FRA_PRIORITY],
        mark=numbers[_FRA_FWMARK],
        mask=numbers[_FRA_FWMASK],
        to=f"{ip_address(target)}/{length}" if target else "",
        table=int.from_bytes(values.get(_FRA_TABLE, b""), "little") if action == _TO_TABLE else 0,
        goto=int.from_bytes(values.get(_FRA_GOTO, b""), "little") if action == _GOTO else 0,
        is_inverted=bool(flags & _INVERTED),
    )
