"""What a backup holds: every object and the audit log as of one index, in pieces of a bounded number of objects.

`capture` takes hold of the objects on the event loop, which is quick since they are immutable; `pieces` encodes them
wherever it is called, and lets other threads run between two pieces. `tables_of` is the way back; it accepts only what
a trailer has confirmed, so its caller reads all pieces first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import msgspec

from pyswarm_common.backup.container import Damaged, KnownManager, Summary
from pyswarm_common.model import AnyObject, Cluster, Node, Service
from pyswarm_common.model.audit import AuditRecord
from pyswarm_manager.store.encoding import decode_snapshot, encode_snapshot
from pyswarm_manager.store.tables import KIND_OF, Kind, Tables

PIECE_OBJECTS = 200
PIECE_RECORDS = 1_000
_MAX_NAMES = 1_000


@dataclass(frozen=True, slots=True)
class Captured:
    """Everything at one index."""

    index: int
    term: int
    cluster: Cluster
    objects: tuple[AnyObject, ...]
    audit: tuple[AuditRecord, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Objects by kind."""
        return dict(Counter(KIND_OF[type(item)].value for item in self.objects))


def capture(view: Tables, cluster: Cluster, index: int, term: int) -> Captured:
    """Take hold of everything. Must run without an await between this and reading `index`."""
    objects = tuple(item for kind in Kind for item in view.table(kind).values())
    return Captured(index, term, cluster, objects, tuple(view.audit))


def summary(captured: Captured) -> Summary:
    """What is shown before a restore."""
    managers = tuple(
        KnownManager(item.id, item.description.hostname, item.manager_status.address, item.manager_status.raft_id)
        for item in captured.objects
        if isinstance(item, Node) and item.manager_status is not None
    )
    names = (item.spec.name for item in captured.objects if isinstance(item, Service))
    return Summary(managers, tuple(islice(names, _MAX_NAMES)))


def pieces(captured: Captured) -> Iterator[tuple[bytes, int]]:
    """Each piece, and how many objects it and those before it hold."""
    objects, audit = captured.objects, captured.audit
    for start in range(0, len(objects), PIECE_OBJECTS):
        part = Tables(index=captured.index)
        for item in objects[start : start + PIECE_OBJECTS]:
            part.put(item)
        yield encode_snapshot(part), min(start + PIECE_OBJECTS, len(objects))
    for start in range(0, len(audit), PIECE_RECORDS):
        part = Tables(index=captured.index)
        part.audit.extend(audit[start : start + PIECE_RECORDS])
        yield encode_snapshot(part), len(objects)


def tables_of(parts: Iterable[bytes]) -> Tables:
    """All of it again. Raises Damaged if a piece cannot be understood, or the cluster is not in it."""
    tables = Tables()
    for part in parts:
        try:
            decoded = decode_snapshot(part)
        except (msgspec.MsgspecError, ValueError, AssertionError) as error:
            raise Damaged("the backup cannot be read by this version of pyswarm: use the one that made it") from error
        tables.index = max(tables.index, decoded.index)
        tables.audit.extend(decoded.audit)
        for kind in Kind:
            for item in decoded.table(kind).values():
                tables.put(item)
    if tables.cluster is None:
        raise Damaged("the backup holds no swarm: it was made before there was one")
    return tables
