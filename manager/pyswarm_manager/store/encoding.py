"""Change sets and snapshots as bytes (msgpack, maps, so that fields can be added).

A task spec is written once per change set and referred to by number: a hundred tasks of one service cost one spec.
Decoding gives those tasks the same spec object; `store.apply` then makes it the one the service's other tasks have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

import msgspec

from pyswarm_common.errors import Exhausted
from pyswarm_common.model import (
    AnyObject,
    Cluster,
    Config,
    LimitedJoinToken,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    RemovedNode,
    Secret,
    Service,
    ServiceRevision,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_common.model.audit import AuditRecord
from pyswarm_common.model.objects import Credential
from pyswarm_manager.store.changes import (
    Change,
    ChangeSet,
    Checkpoint,
    Create,
    Delete,
    SetDesired,
    SetNodeStatus,
    SetTaskStatus,
    Update,
)
from pyswarm_manager.store.sharing import SpecSharing, share_task
from pyswarm_manager.store.tables import Kind, Tables

MAX_CHANGE_SET_BYTES = 1536 * 1024
MAX_CHANGES = 2000
"""Changes in one piece of a split change set: larger ones would keep every member's loop for long."""
PIECE_OBJECTS = 100
"""Objects of a snapshot that are encoded without a rest: well under a millisecond."""
FORMAT = 1


class _Objects(msgspec.Struct, omit_defaults=True, gc=False):
    """One object, in the field of its type; a task's spec by number."""

    cluster: Cluster | None = None
    node: Node | None = None
    service: Service | None = None
    task: Task | None = None
    network: Network | None = None
    credential: Credential | None = None
    spec: int | None = None
    join_token: LimitedJoinToken | None = None
    removed_node: RemovedNode | None = None
    service_revision: ServiceRevision | None = None
    secret: Secret | None = None
    config: Config | None = None


_T = TypeVar("_T", bound=_Objects)


class _Create(_Objects, tag="c", gc=False):
    pass


class _Update(_Objects, tag="u", gc=False):
    pass


class _Delete(msgspec.Struct, tag="d", omit_defaults=True, gc=False):
    kind: Kind
    id: str
    version: int = 0


class _TaskStatus(msgspec.Struct, tag="s", gc=False):
    id: str
    status: TaskStatus


class _Desired(msgspec.Struct, tag="w", gc=False):
    id: str
    state: TaskState


class _NodeStatus(msgspec.Struct, tag="n", omit_defaults=True, gc=False):
    id: str
    status: NodeStatus
    description: NodeDescription | None = None


class _Checkpoint(msgspec.Struct, tag="k", gc=False):
    pass


_WireChange = _Create | _Update | _Delete | _TaskStatus | _Desired | _NodeStatus | _Checkpoint


class _WireChangeSet(msgspec.Struct, omit_defaults=True):
    now: float
    specs: list[TaskSpec]
    changes: list[_WireChange]
    audit: AuditRecord | None = None


class _WireSnapshot(msgspec.Struct):
    format: int
    index: int
    specs: list[TaskSpec]
    objects: list[_Objects]
    audit: list[AuditRecord] = []


class _EncodedSnapshot(msgspec.Struct):
    """The same, with objects that are bytes already."""

    format: int
    index: int
    specs: list[TaskSpec]
    objects: list[msgspec.Raw]
    audit: list[AuditRecord]


class Captured(msgspec.Struct, frozen=True):
    """What a snapshot is to hold, taken hold of at one moment: objects never change, so references are enough."""

    index: int
    objects: tuple[AnyObject, ...]
    audit: tuple[AuditRecord, ...]


_encoder = msgspec.msgpack.Encoder()
_change_set_decoder = msgspec.msgpack.Decoder(_WireChangeSet)
_snapshot_decoder = msgspec.msgpack.Decoder(_WireSnapshot)
_NO_SPEC = Task(id="").spec  # the default itself, which is left out on the wire


class _Specs:
    """Numbers for specs. Specs are told apart by identity first: equal specs are almost always the same object."""

    def __init__(self) -> None:
        self.items: list[TaskSpec] = []
        self._numbers: dict[int, int] = {}

    def number(self, spec: TaskSpec) -> int:
        known = self._numbers.get(id(spec))
        if known is None:
            known = self._numbers[id(spec)] = len(self.items)
            self.items.append(spec)
        return known


def encode_change_set(change_set: ChangeSet) -> bytes:
    """The bytes of a Raft entry. Exhausted if it is larger than an entry may be."""
    specs = _Specs()
    changes = [_to_wire(change, specs) for change in change_set.changes]
    data = _encoder.encode(_WireChangeSet(change_set.now, specs.items, changes, change_set.audit))
    if len(data) > MAX_CHANGE_SET_BYTES:
        raise Exhausted(
            f"change set of {len(data)} bytes is larger than {MAX_CHANGE_SET_BYTES}: split it into smaller ones"
        )
    return data


def decode_change_set(data: bytes) -> ChangeSet:
    wire = _change_set_decoder.decode(data)
    return ChangeSet(tuple(_from_wire(change, wire.specs) for change in wire.changes), wire.now, wire.audit)


def encode_snapshot(tables: Tables) -> bytes:
    return encode_captured(capture_snapshot(tables))


def capture_snapshot(tables: Tables) -> Captured:
    """Everything there is now."""
    objects = tuple(chain.from_iterable(tables.table(kind).values() for kind in Kind))
    return Captured(tables.index, objects, tuple(tables.audit))


def encode_captured(captured: Captured, rest: Callable[[], None] = lambda: None) -> bytes:
    """The bytes of a snapshot, made in small pieces with `rest` in between, for a thread that lets others go first."""
    specs = _Specs()
    objects: list[msgspec.Raw] = []
    for start in range(0, len(captured.objects), PIECE_OBJECTS):
        piece = captured.objects[start : start + PIECE_OBJECTS]
        objects += [msgspec.Raw(_encoder.encode(_fill(_Objects(), item, specs))) for item in piece]
        rest()
    return _encoder.encode(_EncodedSnapshot(FORMAT, captured.index, specs.items, objects, list(captured.audit)))


def decode_snapshot(data: bytes) -> Tables:
    wire = _snapshot_decoder.decode(data)
    if wire.format != FORMAT:
        raise ValueError(f"snapshot of format {wire.format}, and this manager reads {FORMAT}: use the matching version")
    tables = Tables(index=wire.index)
    tables.audit.extend(wire.audit)
    sharing = SpecSharing()
    for wire_item in wire.objects:
        item = _content(wire_item, wire.specs)
        tables.put(share_task(item, tables.services, None, sharing) if isinstance(item, Task) else item)
    return tables


def _to_wire(change: Change, specs: _Specs) -> _WireChange:
    match change:
        case Create(item):
            return _fill(_Create(), item, specs)
        case Update(item):
            return _fill(_Update(), item, specs)
        case Delete(kind, object_id, version):
            return _Delete(kind, object_id, version)
        case SetTaskStatus(task_id, status):
            return _TaskStatus(task_id, status)
        case SetDesired(task_id, desired):
            return _Desired(task_id, desired)
        case SetNodeStatus(node_id, node_status, description):
            return _NodeStatus(node_id, node_status, description)
        case Checkpoint():
            return _Checkpoint()


def _from_wire(change: _WireChange, specs: list[TaskSpec]) -> Change:
    match change:
        case _Create():
            return Create(_content(change, specs))
        case _Update():
            return Update(_content(change, specs))
        case _Delete():
            return Delete(change.kind, change.id, change.version)
        case _TaskStatus():
            return SetTaskStatus(change.id, change.status)
        case _Desired():
            return SetDesired(change.id, change.state)
        case _NodeStatus():
            return SetNodeStatus(change.id, change.status, change.description)
        case _Checkpoint():
            return Checkpoint()


def _fill(into: _T, item: AnyObject, specs: _Specs) -> _T:
    match item:
        case Task():
            into.spec = specs.number(item.spec)
            into.task = msgspec.structs.replace(item, spec=_NO_SPEC)
        case Service():
            into.service = item
        case Node():
            into.node = item
        case Network():
            into.network = item
        case Cluster():
            into.cluster = item
        case Credential():
            into.credential = item
        case LimitedJoinToken():
            into.join_token = item
        case RemovedNode():
            into.removed_node = item
        case ServiceRevision():
            into.service_revision = item
        case Secret():
            into.secret = item
        case Config():
            into.config = item
    return into


def _content(wire: _Objects, specs: list[TaskSpec]) -> AnyObject:
    if wire.task is not None:
        assert wire.spec is not None, wire.task.id
        return msgspec.structs.replace(wire.task, spec=specs[wire.spec])
    item: AnyObject | None = wire.service or wire.node or wire.network or wire.cluster
    item = item or wire.credential or wire.join_token or wire.removed_node
    item = item or wire.service_revision or wire.secret or wire.config
    assert item is not None, "a change without an object"
    return item


def split_changes(changes: Sequence[Change], limit: int = MAX_CHANGE_SET_BYTES) -> Iterator[Sequence[Change]]:
    """The same changes in the same order, in pieces whose entries are small enough. One change is never split."""
    for start in range(0, len(changes), MAX_CHANGES):
        yield from _halved(changes[start : start + MAX_CHANGES], limit)


def _halved(changes: Sequence[Change], limit: int) -> Iterator[Sequence[Change]]:
    specs = _Specs()
    wire = [_to_wire(change, specs) for change in changes]
    if len(changes) <= 1 or len(_encoder.encode(_WireChangeSet(0.0, specs.items, wire))) <= limit:
        yield changes
        return
    middle = len(changes) // 2
    yield from _halved(changes[:middle], limit)
    yield from _halved(changes[middle:], limit)
