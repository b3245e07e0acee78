"""Pieces of libnftables' JSON: the expressions that rules are made of, and commands for one table. Pure.

Nothing here knows what a rule is for: that is in `host_rules`, `port_rules` and `drivers.bridge_rules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .rules import Command, Expression

Family = Literal["ip", "ip6"]
FAMILIES: tuple[Family, Family] = ("ip", "ip6")


class TableWriter:
    """Writes commands for one table."""

    def __init__(self, name: str) -> None:
        self.name = name

    def base(self, chain: str, kind: str, hook: str, priority: int) -> Command:
        settings = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
        return {"add": {"chain": {"family": "inet", "table": self.name, "name": chain, **settings}}}

    def chain(self, chain: str) -> Command:
        return {"add": {"chain": {"family": "inet", "table": self.name, "name": chain}}}

    def rule(self, chain: str, *expressions: Expression) -> Command:
        return {"add": {"rule": {"family": "inet", "table": self.name, "chain": chain, "expr": list(expressions)}}}


def match(left: Expression, right: object, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def field(protocol: str, name: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def ct(key: str) -> Expression:
    return {"ct": {"key": key}}


def of_family(family: Family) -> Expression:
    return match(meta("nfproto"), "ipv4" if family == "ip" else "ipv6")


def set_of(values: Iterable[object]) -> Expression:
    return {"set": list(values)}


def address_kind(end: str) -> Expression:
    """What the packet's `saddr` or `daddr` is to this host: "local" and so on."""
    return {"fib": {"result": "type", "flags": [end]}}


def prefix(subnet: str) -> Expression:
    address, _, length = subnet.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def assign(key: Expression, value: object) -> Expression:
    return {"mangle": {"key": key, "value": value}}
