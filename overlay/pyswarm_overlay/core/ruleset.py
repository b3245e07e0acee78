"""What nftables tables do, read from the kernel's raw dumps and made comparable. Pure.

Two tables are equal when their chains, rules, sets and elements are; handles, counters and the numbers that the kernel
gives to nameless sets are left out. Nothing here knows what a rule means, so whatever somebody writes is compared: the
wanted rules are written into a namespace of their own, read back, and held against those in use (`kernel.ruleset`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .attributes import attributes

TableKey = tuple[int, str]
"""(family, name)"""
SetKey = tuple[int, str, str]
"""(family, table, set)"""

_ATTR = struct.Struct("=HH")
_CHAIN_SETTINGS = (4, 5, 7, 10)
_SET_SETTINGS = (3, 4, 5, 6, 7, 9, 11, 15)
_ELEMENT_PARTS = (1, 2, 3, 10)
_SET_FLAGS = 3
_FILLED_BY_PACKETS = 0x10 | 0x20
"""Sets with timeouts, or that rules add to: their elements come and go by themselves."""
_DORMANT = 1
_NAMELESS = "__"
_COUNTING = ("counter", "quota", "last", "limit", "connlimit")


@dataclass(slots=True)
class TableShape:
    """One table. `chains` has its chains' settings, `rules` the rules of each in order, `sets` the named ones."""

    dormant: bool = False
    """Its rules are asleep."""
    chains: dict[str, object] = field(default_factory=dict)
    rules: dict[str, list[object]] = field(default_factory=dict)
    sets: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class SetShape:
    settings: object
    by_packets: bool
    elements: frozenset[object] = frozenset()


def table_flags(bodies: Iterable[bytes]) -> dict[TableKey, int]:
    """Every table there is, with its flags."""
    found = ((body[0], attributes(body, 4)) for body in bodies)
    return {(family, _text(values.get(1, b""))): int.from_bytes(values.get(2, b""), "big") for family, values in found}


def set_shapes(bodies: Iterable[bytes]) -> dict[SetKey, SetShape]:
    found: dict[SetKey, SetShape] = {}
    for body in bodies:
        values = attributes(body, 4)
        key = body[0], _text(values.get(1, b"")), _text(values.get(2, b""))
        flags = int.from_bytes(values.get(_SET_FLAGS, b""), "big")
        found[key] = SetShape(_settings(values, _SET_SETTINGS), bool(flags & _FILLED_BY_PACKETS))
    return found


def elements(bodies: Iterable[bytes]) -> frozenset[object]:
    """Of one set, from the dump of its elements."""
    found: set[object] = set()
    for body in bodies:
        for element in _members(attributes(body, 4).get(3, b"")):
            found.add(_settings(attributes(element), _ELEMENT_PARTS))
    return frozenset(found)


def shapes(
    tables: Mapping[TableKey, int], chains: Iterable[bytes], rules: Iterable[bytes], sets: Mapping[SetKey, SetShape]
) -> dict[TableKey, TableShape]:
    """`tables`: with their flags."""
    found = {key: TableShape(dormant=bool(flags & _DORMANT)) for key, flags in tables.items()}
    for body in chains:
        values = attributes(body, 4)
        shape = found.get((body[0], _text(values.get(1, b""))))
        if shape is not None:
            shape.chains[_text(values.get(3, b""))] = _settings(values, _CHAIN_SETTINGS)
    for body in rules:
        values = attributes(body, 4)
        key = body[0], _text(values.get(1, b""))
        if key in found:
            rule = tuple(_expression(expression, key, sets) for expression in _members(values.get(4, b"")))
            found[key].rules.setdefault(_text(values.get(2, b"")), []).append(rule)
    for (family, table, name), content in sets.items():
        if (family, table) in found and not name.startswith(_NAMELESS):
            found[family, table].sets[name] = _content(content)
    return found


def differences(wanted: TableShape, observed: TableShape | None, table: str) -> list[str]:
    """One sentence for each chain and set that is not as wanted."""
    if observed is None:
        return [f"nftables table {table} is missing"]
    found = [f"nftables table {table} is dormant"] if observed.dormant > wanted.dormant else []
    for what, mine, theirs in (
        ("chain", wanted.chains, observed.chains),
        ("rules of chain", wanted.rules, observed.rules),
        ("set", wanted.sets, observed.sets),
    ):
        names = sorted({*mine, *theirs})
        wrong = [name for name in names if mine.get(name) != theirs.get(name)]
        found += [f"nftables table {table}: {what} {name}: {_how(name, mine, theirs)}" for name in wrong]
    return found


def _how(name: str, wanted: Mapping[str, object], observed: Mapping[str, object]) -> str:
    if name not in observed:
        return "missing"
    return "not as wanted" if name in wanted else "not ours"


def _content(shape: SetShape) -> object:
    return shape.settings if shape.by_packets else (shape.settings, shape.elements)


def _expression(data: bytes, table: TableKey, sets: Mapping[SetKey, SetShape]) -> object:
    values = attributes(data)
    name, inner = _text(values.get(1, b"")), values.get(2, b"")
    if name in _COUNTING:
        return name
    if name == "lookup":
        parts = attributes(inner)
        searched = _text(parts.get(1, b""))
        if searched.startswith(_NAMELESS):
            content = sets.get((*table, searched))
            rest = tuple(sorted((kind, value) for kind, value in parts.items() if kind != 1))
            return name, rest, None if content is None else _content(content)
    return name, inner


def _settings(values: Mapping[int, bytes], kinds: Iterable[int]) -> object:
    return tuple((kind, values[kind]) for kind in kinds if kind in values)


def _members(data: bytes) -> list[bytes]:
    """The payloads of a list, in order."""
    found, offset = [], 0
    while offset + 4 <= len(data):
        length, _kind = _ATTR.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            break
        found.append(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    return found


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("ascii", "replace")
