"""The rules that keep bridges of this host apart, as a document for libnftables: pure.

They are in a table of their own (`ps_drivers`), replaced whole. Containers of one bridge meet on it, below these rules;
between bridges, and from a bridge to anywhere else, nothing is forwarded but answers and published ports. A bridge
without masquerading is routed: the outside may reach its containers, other containers of this host may not. Nor do
containers of a bridge send tunnelled packets to nodes, this one included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyswarm_overlay.core.expressions import TableWriter, ct, match, meta
from pyswarm_overlay.core.host_rules import RAW_PRIORITY, delete_table, no_tunnelling, replace_table
from pyswarm_overlay.core.rules import Command, Expression, list_table

_PRIORITY = -10  # before the rules of published ports


@dataclass(frozen=True, slots=True)
class BridgeRule:
    name: str
    is_routed: bool


def table_name(prefix: str) -> str:
    return f"{prefix}_drivers"


def document(table: str, ways_out: str, bridges: Iterable[BridgeRule], data_path_port: int) -> list[Command]:
    """`ways_out`: a pattern of the interfaces that lead to sandboxes. Without a bridge there is no table."""
    ordered = sorted(bridges, key=lambda bridge: bridge.name)
    if not ordered:
        return delete_table(table)
    write = TableWriter(table)
    commands = [
        *replace_table(table),
        write.base("raw", "filter", "prerouting", RAW_PRIORITY),
        *(no_tunnelling(write, bridge.name, data_path_port) for bridge in ordered),
        write.base("forward", "filter", "forward", _PRIORITY),
        write.rule("forward", match(ct("state"), ["established", "related"], "in"), {"accept": None}),
        write.rule("forward", match(ct("status"), "dnat", "in"), {"accept": None}),
    ]
    for bridge in ordered:
        others = [ways_out, *(other.name for other in ordered if other is not bridge)]
        commands += [write.rule("forward", *ways, {"drop": None}) for ways in _apart(bridge, others)]
    return commands


def _apart(bridge: BridgeRule, others: list[str]) -> Iterator[tuple[Expression, Expression]]:
    """What comes in and goes out where it must not."""
    into, out = meta("iifname"), meta("oifname")
    if not bridge.is_routed:
        yield match(into, bridge.name), match(out, bridge.name, "!=")
        yield match(out, bridge.name), match(into, bridge.name, "!=")
        return
    for other in others:
        yield match(into, bridge.name), match(out, other)
        yield match(into, other), match(out, bridge.name)


def listing(table: str) -> list[Command]:
    return list_table(table, "inet")


def shape(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of a listing or a document's commands: the interfaces that its rules name, in order."""
    items = [item.get("add", item) for item in found.get("nftables", ())]
    return [_named(item["rule"]["expr"]) for item in items if "rule" in item]


def _named(expressions: list[Expression]) -> tuple[str, ...]:
    matches = [expression["match"] for expression in expressions if "match" in expression]
    return tuple(f"{one['op']} {one['right']}" for one in matches if "meta" in one["left"])
