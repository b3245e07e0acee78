"""A stable digest of the tables, to compare replicas at the same index.

Depends on content only: not on the order in which objects or labels came in, nor on which equal objects are shared.
What it reads is frozen first (references, no copies), so that it may be made in a thread while the tables change; and
such a thread is given a way to rest between small steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pyswarm_manager.store.tables import Kind, Tables

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_STEP = 200
_BUCKET = 3
"""Ids are sorted by their first characters before they are sorted, since one sort of many holds the interpreter."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The objects at one index."""

    index: int
    tables: Mapping[Kind, Mapping[str, Any]]
    audit: Sequence[Any] = ()


def freeze(tables: Tables) -> Frozen:
    """The objects as they are now; what happens to the tables later does not show."""
    return Frozen(tables.index, {kind: dict(tables.table(kind)) for kind in Kind}, tuple(tables.audit))


def digest(tables: Tables) -> str:
    """Hex SHA-256 over the index and every object, by kind and id."""
    return digest_of(freeze(tables))


def digest_of(frozen: Frozen, rest: Callable[[], None] | None = None) -> str:
    """The same, of what was frozen. Safe in a thread, which rests after every few objects."""
    state = hashlib.sha256(str(frozen.index).encode())
    for kind in Kind:
        table = frozen.tables[kind]
        for number, object_id in enumerate(_sorted(table), 1):
            if rest is not None and number % _STEP == 0:
                rest()
            state.update(kind.encode())
            state.update(_encoder.encode(table[object_id]))
    for record in frozen.audit:
        state.update(_encoder.encode(record))
    return state.hexdigest()


def _sorted(ids: Mapping[str, Any]) -> Iterator[str]:
    buckets: dict[str, list[str]] = {}
    for object_id in ids:
        buckets.setdefault(object_id[:_BUCKET], []).append(object_id)
    for prefix in sorted(buckets):
        yield from sorted(buckets[prefix])
