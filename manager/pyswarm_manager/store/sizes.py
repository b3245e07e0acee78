"""What the store is made of: how many objects of each kind, how large, and which are the largest. Pure.

A size is that of the object encoded alone; in a snapshot tasks share their specs, so all of it together is less.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pyswarm_common.model import Meta, Node, Task
from pyswarm_manager.store.digest import Frozen
from pyswarm_manager.store.tables import Kind, unique_name

LARGEST = 3
_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class ObjectSize:
    """One object."""

    kind: Kind
    id: str
    name: str
    size_bytes: int
    meta: Meta


@dataclass(frozen=True, slots=True)
class KindSize:
    """All objects of one kind."""

    kind: Kind
    objects: int
    size_bytes: int
    largest: tuple[ObjectSize, ...]


def measure(frozen: Frozen) -> list[KindSize]:
    """Every kind. Safe in a thread."""
    return [_measure_kind(kind, frozen.tables[kind]) for kind in Kind]


def list_objects(frozen: Frozen, kind: Kind, limit: int) -> list[ObjectSize]:
    """The objects of one kind, largest first. Safe in a thread."""
    return heapq.nsmallest(limit, _sizes(kind, frozen.tables[kind]), key=_largest_first)


def _measure_kind(kind: Kind, table: Mapping[str, Any]) -> KindSize:
    total = 0
    largest: list[tuple[int, str]] = []
    for object_id, item in table.items():
        size = len(_encoder.encode(item))
        total += size
        if len(largest) < LARGEST:
            heapq.heappush(largest, (size, object_id))
        else:
            heapq.heappushpop(largest, (size, object_id))
    found = _sizes(kind, {object_id: table[object_id] for _, object_id in largest})
    return KindSize(kind, len(table), total, tuple(sorted(found, key=_largest_first)))


def _sizes(kind: Kind, table: Mapping[str, Any]) -> Iterator[ObjectSize]:
    for object_id, item in table.items():
        yield ObjectSize(kind, object_id, _name(item), len(_encoder.encode(item)), item.meta)


def _largest_first(item: ObjectSize) -> tuple[int, str]:
    return -item.size_bytes, item.id


def _name(item: Any) -> str:
    match item:
        case Node():
            return item.description.hostname
        case Task():
            return item.name
    return unique_name(item)
