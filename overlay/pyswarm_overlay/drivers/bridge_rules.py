"""The rules that keep bridges of this host apart, as a document for libnftables: pure.

They are in a table of their own (`ps_drivers`), replaced whole. Containers of one bridge meet on it, below these rules;
between bridges, and from a bridge to anywhere else, nothing is forwarded but answers and published ports. A bridge
without masquerading is routed: the outside may reach its containers, other containers of this host may not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Command = dict[str, Any]
Expression = dict[str, Any]

_FAMILY = "inet"
_PRIORITY = -10  # before the rules of published ports


@dataclass(frozen=True, slots=True)
class BridgeRule:
    name: str
    is_routed: bool


def table_name(prefix: str) -> str:
    return f"{prefix}_drivers"


def document(table: str, ways_out: str, bridges: Iterable[BridgeRule]) -> list[Command]:
    """`ways_out`: a pattern of the interfaces that lead to sandboxes. Without a bridge there is no table."""
    ordered = sorted(bridges, key=lambda bridge: bridge.name)
    named = {"family": _FAMILY, "name": table}
    commands: list[Command] = [{"add": {"table": named}}, {"delete": {"table": named}}]
    if not ordered:
        return commands
    settings = {"type": "filter", "hook": "forward", "prio": _PRIORITY, "policy": "accept"}
    commands += [
        {"add": {"table": named}},
        {"add": {"chain": {"family": _FAMILY, "table": table, "name": "forward", **settings}}},
        _rule(table, _match(_ct("state"), ["established", "related"], "in"), {"accept": None}),
        _rule(table, _match(_ct("status"), "dnat", "in"), {"accept": None}),
    ]
    for bridge in ordered:
        commands += _apart(table, bridge, [ways_out, *(other.name for other in ordered if other is not bridge)])
    return commands


def _apart(table: str, bridge: BridgeRule, others: list[str]) -> list[Command]:
    into, out = _meta("iifname"), _meta("oifname")
    if not bridge.is_routed:
        return [
            _rule(table, _match(into, bridge.name), _match(out, bridge.name, "!="), {"drop": None}),
            _rule(table, _match(out, bridge.name), _match(into, bridge.name, "!="), {"drop": None}),
        ]
    return [
        rule
        for other in others
        for rule in (
            _rule(table, _match(into, bridge.name), _match(out, other), {"drop": None}),
            _rule(table, _match(into, other), _match(out, bridge.name), {"drop": None}),
        )
    ]


def listing(table: str) -> list[Command]:
    return [{"list": {"table": {"family": _FAMILY, "name": table}}}]


def shape(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of a listing or a document's commands: the interfaces that its rules name, in order."""
    items = [item.get("add", item) for item in found.get("nftables", ())]
    return [_named(item["rule"]["expr"]) for item in items if "rule" in item]


def _named(expressions: list[Expression]) -> tuple[str, ...]:
    matches = [expression["match"] for expression in expressions if "match" in expression]
    return tuple(f"{match['op']} {match['right']}" for match in matches if "meta" in match["left"])


def _rule(table: str, *expressions: Expression) -> Command:
    return {"add": {"rule": {"family": _FAMILY, "table": table, "chain": "forward", "expr": list(expressions)}}}


def _match(left: Expression, right: object, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def _ct(key: str) -> Expression:
    return {"ct": {"key": key}}
