"""A stable digest of the tables, to compare replicas at the same index.

Depends on content only: not on the order in which objects or labels came in, nor on which equal objects are shared.
"""

from __future__ import annotations

import hashlib

import msgspec

from pyswarm_manager.store.tables import Kind, Tables

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def digest(tables: Tables) -> str:
    """Hex SHA-256 over the index, every object by kind and id, and the audit log."""
    state = hashlib.sha256(str(tables.index).encode())
    for kind in Kind:
        table = tables.table(kind)
        for object_id in sorted(table):
            state.update(kind.encode())
            state.update(_encoder.encode(table[object_id]))
    for record in tables.audit:
        state.update(_encoder.encode(record))
    return state.hexdigest()
