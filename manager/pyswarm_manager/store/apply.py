"""Apply: the one function through which every member changes its tables, at the same index in the same way.

Decides whether a change set holds against the tables as they are (versions, unique names and ports, references), and
what it does to them: all of it or nothing. A function of its arguments alone: no clock (time is in the change set), no
randomness, no I/O. A refusal is a value, the same on every member; an exception is a bug, and ends the process.

Who acts next: the store's shell publishes the events, or raises the refusal to its proposer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from pyswarm_common.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    PyswarmError,
)
from pyswarm_common.model import (
    AnyObject,
    Availability,
    Cluster,
    Meta,
    Node,
    NodeState,
    Service,
    ServiceRevision,
    Task,
    TaskState,
)
from pyswarm_manager.store.audit import recorded
from pyswarm_manager.store.changes import (
    Change,
    ChangeSet,
    Checkpoint,
    Create,
    Delete,
    Event,
    SetDesired,
    SetNodeStatus,
    SetTaskStatus,
    Update,
)
from pyswarm_manager.store.dependencies import cycle_sentence, find_cycle
from pyswarm_manager.store.file_references import check_files, refuse_if_used
from pyswarm_manager.store.network_claims import check_claims
from pyswarm_manager.store.network_references import check_attached, check_networks
from pyswarm_manager.store.network_references import refuse_if_used as refuse_network_if_used
from pyswarm_manager.store.revisions import author_of, limit_of, present_revision, revisions_of
from pyswarm_manager.store.sharing import SpecSharing, share_service, share_task
from pyswarm_manager.store.static_addresses import check_static
from pyswarm_manager.store.tables import KIND_OF, Kind, Port, Tables, ingress_ports, unique_name


@dataclass(frozen=True, slots=True)
class Applied:
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    error: PyswarmError


def apply(tables: Tables, index: int, change_set: ChangeSet) -> Applied | Refusal:
    """Apply the change set to the tables, or leave them untouched and say why. Either way they are at `index` now."""
    assert index > tables.index, f"index {index} applied after {tables.index}"
    transaction = _Transaction(tables, index, change_set.now, author_of(change_set.audit))
    tables.index = index
    try:
        for change in change_set.changes:
            transaction.add(change)
        transaction.check_references()
    except PyswarmError as refusal:
        return Refusal(refusal)
    events = transaction.commit()
    if change_set.audit is not None:
        tables.audit.append(recorded(change_set.audit, index, change_set.now, events))
    return Applied(events)


class _Transaction:
    """The change set's effects, kept aside until all of them are known to hold."""

    def __init__(self, tables: Tables, index: int, now: float, author: str) -> None:
        self._tables = tables
        self._index = index
        self._now = now
        self._author = author
        self._sharing = SpecSharing()
        self._pending: dict[Kind, dict[str, Any]] = {kind: {} for kind in Kind}
        self._names: dict[tuple[Kind, str], str] = {}
        self._ports: dict[Port, str] = {}

    def add(self, change: Change) -> None:
        match change:
            case Create(item):
                self._create(item)
            case Update(item):
                self._update(item)
            case Delete():
                self._delete(change)
            case SetTaskStatus():
                self._set_task_status(change)
            case SetDesired():
                self._set_desired(change)
            case SetNodeStatus():
                self._set_node_status(change)
            case Checkpoint():
                pass  # the store keeps its objects of this index

    def check_references(self) -> None:
        """What must hold once everything is in: no network goes while it is used, no service names a missing one."""
        for network_id, network in self._pending[Kind.NETWORK].items():
            old = self._tables.networks.get(network_id)
            if network is not None:
                check_claims(network, old, self._all(Kind.NETWORK))
            elif old is not None:
                refuse_network_if_used(old, self._all(Kind.SERVICE), self._all(Kind.TASK))
        for service_id, service in self._pending[Kind.SERVICE].items():
            if service is not None:
                before = self._tables.services.get(service_id)
                check_networks(service, before, self._get)
                self._check_dependencies(service, before)
                check_static(service, before, self._all(Kind.SERVICE), partial(self._get, Kind.NETWORK))
                check_files(service, before, self._get)
        for kind in (Kind.SECRET, Kind.CONFIG):
            gone = [object_id for object_id, item in self._pending[kind].items() if item is None]
            refuse_if_used(kind, gone, self._tables.table(kind), self._all(Kind.SERVICE))

    def commit(self) -> tuple[Event, ...]:
        events = []
        for kind, objects in self._pending.items():
            if not objects:
                continue
            before = self._tables.table(kind)
            for object_id, new in objects.items():
                old = before.get(object_id)
                if new is not None:
                    self._tables.put(new)
                elif old is not None:
                    self._tables.remove(kind, object_id)
                if old is not new:
                    events.append(Event(old, new))
        return tuple(events)

    def _get(self, kind: Kind, object_id: str) -> Any:
        pending = self._pending[kind]
        if object_id in pending:
            return pending[object_id]
        return self._tables.table(kind).get(object_id)

    def _all(self, kind: Kind) -> Iterator[Any]:
        """Every object of the kind as it is after the changes."""
        pending = self._pending[kind]
        yield from (item for object_id, item in self._tables.table(kind).items() if object_id not in pending)
        yield from (item for item in pending.values() if item is not None)

    def _create(self, item: AnyObject) -> None:
        kind = KIND_OF[type(item)]
        if self._get(kind, item.id) is not None:
            raise AlreadyExists(f"{kind} {item.id} already exists")
        meta = Meta(version=self._index, created_at=self._now, updated_at=self._now)
        if isinstance(item, Task):
            item = self._shared(item, None)
        if isinstance(item, Service):
            item = self._begun(item)
        if isinstance(item, Node):
            item = self._drained_since(item, None)
        self._put(kind, msgspec.structs.replace(item, meta=meta))

    def _update(self, item: AnyObject) -> None:
        kind = KIND_OF[type(item)]
        old = self._get(kind, item.id)
        self._check_version(kind, item.id, old, item.meta.version)
        if isinstance(item, Task):
            item = self._shared(item, old)
        if isinstance(item, Service):
            item = self._respecified(share_service(item, old), old)
        if isinstance(item, Node):
            item = self._drained_since(item, old)
        self._put(kind, self._touched(item, old))

    def _delete(self, change: Delete) -> None:
        old = self._get(change.kind, change.id)
        if change.version == 0 and change.kind is Kind.TASK:
            if old is not None:
                self._pending[Kind.TASK][change.id] = None
            return
        self._check_version(change.kind, change.id, old, change.version)
        self._pending[change.kind][change.id] = None
        if isinstance(old, Service):
            for revision in revisions_of(old, self._revision):
                self._pending[Kind.SERVICE_REVISION][revision.id] = None

    def _set_task_status(self, change: SetTaskStatus) -> None:
        """States only move forward, and nothing follows an end: what comes late is passed over."""
        old: Task | None = self._get(Kind.TASK, change.task_id)
        status = change.status
        if old is None or old.status.state.is_terminal or status.state < old.status.state or status == old.status:
            return
        changed = msgspec.structs.replace(
            old,
            status=status,
            running_at=old.running_at or (self._now if status.state is TaskState.RUNNING else 0.0),
            ran_from=old.ran_from or (status.timestamp if status.state is TaskState.RUNNING else 0.0),
            ended_at=self._now if status.state.is_terminal else 0.0,
        )
        self._pending[Kind.TASK][old.id] = self._touched(changed, old)

    def _set_desired(self, change: SetDesired) -> None:
        """A desired state only rises, so two plans can never fight over it."""
        old: Task | None = self._get(Kind.TASK, change.task_id)
        if old is None or change.desired_state <= old.desired_state:
            return
        changed = msgspec.structs.replace(old, desired_state=change.desired_state)
        self._pending[Kind.TASK][old.id] = self._touched(changed, old)

    def _set_node_status(self, change: SetNodeStatus) -> None:
        """A broken session makes only a ready node suspect: one that has left meanwhile stays down."""
        old: Node | None = self._get(Kind.NODE, change.node_id)
        if old is None:
            return
        if change.status.state is NodeState.SUSPECT and old.status.state is not NodeState.READY:
            return
        description = old.description if change.description is None else change.description
        if change.status == old.status and description == old.description:
            return
        changed = msgspec.structs.replace(old, status=change.status, description=description)
        self._pending[Kind.NODE][old.id] = self._touched(changed, old)

    def _put(self, kind: Kind, item: AnyObject) -> None:
        name = unique_name(item)
        if name:
            self._claim_name(kind, name, item.id)
        if isinstance(item, Service):
            self._claim_ports(item)
        self._pending[kind][item.id] = item

    def _claim_name(self, kind: Kind, name: str, object_id: str) -> None:
        owner = self._names.get((kind, name)) or self._tables.ids_by_name.get((kind, name))
        if owner is not None and owner != object_id:
            holder = self._get(kind, owner)
            if holder is not None and unique_name(holder) == name:
                raise AlreadyExists(f"name conflicts with an existing object: {kind} {name} already exists")
        self._names[kind, name] = object_id

    def _claim_ports(self, service: Service) -> None:
        for port in ingress_ports(service):
            owner = self._ports.get(port) or self._tables.published.get(port)
            if owner is not None and owner != service.id:
                holder: Service | None = self._get(Kind.SERVICE, owner)
                if holder is not None and port in ingress_ports(holder):
                    raise AlreadyExists(
                        f"port '{port[1]}' is already in use by service '{holder.spec.name}' as an ingress port"
                    )
            self._ports[port] = service.id

    def _check_version(self, kind: Kind, object_id: str, old: AnyObject | None, version: int) -> None:
        if old is None:
            raise NotFound(f"{kind} {object_id} not found")
        if version == 0:
            raise InvalidArgument(f"the change of {kind} {object_id} does not say which version it read")
        if old.meta.version != version:
            raise OutOfSequence(
                f"update out of sequence: {kind} {object_id} is at version {old.meta.version}, "
                f"and the change was made from version {version}"
            )

    def _shared(self, task: Task, old: Task | None) -> Task:
        if old is None or old.networks != task.networks:
            check_attached(task, self._get)
        if task.spec.attachment is not None and not task.service_id:
            return task  # a plain container
        service: Service | None = self._get(Kind.SERVICE, task.service_id)
        if service is None:
            raise NotFound(f"service {task.service_id} not found")
        return share_task(task, {service.id: service}, old, self._sharing)

    def _touched(self, item: AnyObject, old: AnyObject) -> AnyObject:
        meta = Meta(version=self._index, created_at=old.meta.created_at, updated_at=self._now)
        return msgspec.structs.replace(item, meta=meta)

    def _begun(self, service: Service) -> Service:
        """A new service: its spec is the first of its history, and its first tasks wait for what it depends on."""
        awaits = bool(service.spec.depends_on) and not service.spec.stopped
        begun = msgspec.structs.replace(service, spec_version=self._index, revision=1, awaits_dependencies=awaits)
        self._write_revision(begun)
        return begun

    def _respecified(self, service: Service, old: Service) -> Service:
        """A new spec keeps the old one for rollback, and ends what was known of the old one's update."""
        if service.spec == old.spec:
            is_resumed = _is_paused(old) and not _is_paused(service)  # failures are counted anew
            return msgspec.structs.replace(
                service,
                spec=old.spec,
                spec_version=self._index if is_resumed else old.spec_version,
                revision=old.revision,
            )
        previous = service.previous_spec if service.previous_spec != old.previous_spec else old.spec
        status = service.update_status if service.update_status != old.update_status else None
        is_started = old.spec.stopped and not service.spec.stopped and bool(service.spec.depends_on)
        changed = msgspec.structs.replace(
            service,
            spec_version=self._index,
            previous_spec=previous,
            update_status=status,
            revision=old.revision + 1,
            awaits_dependencies=service.awaits_dependencies or is_started,
        )
        self._write_revision(changed)
        return changed

    def _write_revision(self, service: Service) -> None:
        """The present spec into the history, and what that is too long for out of it."""
        revision = present_revision(service, self._author)
        meta = Meta(version=self._index, created_at=self._now, updated_at=self._now)
        pending = self._pending[Kind.SERVICE_REVISION]
        limit = limit_of(self._get_cluster())
        for earlier in revisions_of(_before(service), self._revision, skip=limit - 1):
            pending[earlier.id] = None
        pending[revision.id] = msgspec.structs.replace(revision, meta=meta)

    def _revision(self, revision_id: str) -> ServiceRevision | None:
        revision: ServiceRevision | None = self._get(Kind.SERVICE_REVISION, revision_id)
        return revision

    def _get_cluster(self) -> Cluster | None:
        return next(iter(self._pending[Kind.CLUSTER].values()), None) or self._tables.cluster

    def _drained_since(self, node: Node, old: Node | None) -> Node:
        """A drain begins when it is asked for, and again with another deadline."""
        if node.spec.availability is not Availability.DRAIN:
            since = 0.0
        elif old is not None and (old.spec.availability, old.spec.drain_deadline_s) == (
            Availability.DRAIN,
            node.spec.drain_deadline_s,
        ):
            since = old.drain_started_at
        else:
            since = self._now
        return node if since == node.drain_started_at else msgspec.structs.replace(node, drain_started_at=since)

    def _check_dependencies(self, service: Service, old: Service | None) -> None:
        if not service.spec.depends_on or (old is not None and old.spec.depends_on == service.spec.depends_on):
            return
        cycle = find_cycle(service.spec, self._service_named)
        if cycle:
            raise InvalidArgument(cycle_sentence(cycle))

    def _service_named(self, name: str) -> Service | None:
        service_id = self._names.get((Kind.SERVICE, name)) or self._tables.ids_by_name.get((Kind.SERVICE, name))
        service: Service | None = None if service_id is None else self._get(Kind.SERVICE, service_id)
        return service


def _before(service: Service) -> Service:
    """As if the service still had the revision before its present one."""
    return msgspec.structs.replace(service, revision=service.revision - 1)


def _is_paused(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state.is_paused
