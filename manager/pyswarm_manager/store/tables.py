"""The tables: immutable objects in plain dicts, with the few indexes that readers need.

Decides how objects are found; never what they may contain (that is `store.apply`). `put` and `remove` keep the indexes;
nobody else writes into them. Reading is plain dict access, and safe as long as the reader does not await in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pyswarm_common.model import (
    AnyObject,
    Cluster,
    Config,
    LimitedJoinToken,
    Network,
    Node,
    Protocol,
    PublishMode,
    RemovedNode,
    Secret,
    Service,
    ServiceRevision,
    Task,
    TaskState,
)
from pyswarm_common.model.audit import AuditRecord
from pyswarm_common.model.objects import Credential

SlotKey = int | str
"""What a task takes the place of in its service: the slot's number, or the node's id for global services."""

Port = tuple[Protocol, int]

HOST_NETWORK: Final = "host"
NO_NETWORK: Final = "none"
NODE_NETWORKS: Final = frozenset({HOST_NETWORK, NO_NETWORK})
"""Names that stand for themselves among the networks of a service: every node has them."""
"""What a service attaches to for the network of each task's host. No Network object stands for it, and nothing is
allocated on it."""


class Kind(StrEnum):
    CLUSTER = "cluster"
    NODE = "node"
    SERVICE = "service"
    TASK = "task"
    NETWORK = "network"
    CREDENTIAL = "credential"
    JOIN_TOKEN = "join_token"  # noqa: S105  -- a word, no secret
    REMOVED_NODE = "removed_node"
    SERVICE_REVISION = "service_revision"
    SECRET = "secret"  # noqa: S105  -- likewise
    CONFIG = "config"


KIND_OF: Final[dict[type, Kind]] = {
    Cluster: Kind.CLUSTER,
    Node: Kind.NODE,
    Service: Kind.SERVICE,
    Task: Kind.TASK,
    Network: Kind.NETWORK,
    Credential: Kind.CREDENTIAL,
    LimitedJoinToken: Kind.JOIN_TOKEN,
    RemovedNode: Kind.REMOVED_NODE,
    ServiceRevision: Kind.SERVICE_REVISION,
    Secret: Kind.SECRET,
    Config: Kind.CONFIG,
}


_FIELD_OF: Final = {
    Kind.CLUSTER: "clusters",
    Kind.NODE: "nodes",
    Kind.SERVICE: "services",
    Kind.TASK: "tasks",
    Kind.NETWORK: "networks",
    Kind.CREDENTIAL: "credentials",
    Kind.JOIN_TOKEN: "join_tokens",
    Kind.REMOVED_NODE: "removed_nodes",
    Kind.SERVICE_REVISION: "service_revisions",
    Kind.SECRET: "secrets",
    Kind.CONFIG: "configs",
}
"""The field of `Tables` that holds the objects of a kind: looked up many times for each change that is applied."""


def slot_key(task: Task) -> SlotKey:
    return task.slot or task.node_id


def is_unplaced(task: Task) -> bool:
    """Whether the task is wanted and still waits for addresses or a node."""
    return task.status.state < TaskState.ASSIGNED and task.desired_state <= TaskState.RUNNING


def unique_name(item: AnyObject) -> str:
    """The name that no other object of the kind may have; empty for kinds whose names are not unique."""
    if isinstance(item, Credential):
        return f"{item.kind.name.lower()} {item.name}"
    if isinstance(item, Secret | Config):
        return "" if item.superseded else item.spec.name
    return item.spec.name if isinstance(item, Service | Network) else ""


def ingress_ports(service: Service) -> tuple[Port, ...]:
    """Every published port of the service on which all nodes listen: as asked for, and as allocated."""
    ports = (*service.spec.endpoint.ports, *service.endpoint.ports)
    return tuple(
        dict.fromkeys(
            (port.protocol, port.published_port)
            for port in ports
            if port.published_port and port.publish_mode is PublishMode.INGRESS
        )
    )


MAX_AUDIT_RECORDS: Final = 10_000
"""What is kept of the audit log. Apply drops the oldest, so every member must have the same number."""


def _new_audit_log() -> deque[AuditRecord]:
    return deque(maxlen=MAX_AUDIT_RECORDS)


@dataclass(slots=True)
class Tables:
    """All objects at one index. `index` is the Raft index of the last change set applied."""

    index: int = 0
    clusters: dict[str, Cluster] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    credentials: dict[str, Credential] = field(default_factory=dict)
    audit: deque[AuditRecord] = field(default_factory=_new_audit_log)
    """What people and joining machines changed, oldest first; the last `MAX_AUDIT_RECORDS` of it."""
    join_tokens: dict[str, LimitedJoinToken] = field(default_factory=dict)
    removed_nodes: dict[str, RemovedNode] = field(default_factory=dict)
    """By node id; refused everywhere until their certificates have expired."""
    service_revisions: dict[str, ServiceRevision] = field(default_factory=dict)
    """The specs that services had and have; found with `store.revisions`."""
    secrets: dict[str, Secret] = field(default_factory=dict)
    configs: dict[str, Config] = field(default_factory=dict)
    """Of both all versions that somebody may need; the latest of each name is found by it."""
    ids_by_name: dict[tuple[Kind, str], str] = field(default_factory=dict)
    slots: dict[str, dict[SlotKey, tuple[Task, ...]]] = field(default_factory=dict)
    """Tasks by service id, then by slot; within a slot in the order they were made."""
    node_tasks: dict[str, dict[str, None]] = field(default_factory=dict)
    """Ids of tasks by node id, of unplaced tasks of global services too."""
    unplaced: dict[str, Task] = field(default_factory=dict)
    """Wanted tasks that wait for addresses or a node."""
    published: dict[Port, str] = field(default_factory=dict)
    """Service id by published ingress port."""
    node_specs: dict[str, int] = field(default_factory=dict, compare=False)
    """Version at which the spec of each node last changed, as far as this member saw: after a snapshot it may say a
    later one, which only makes the leader stricter. Never read by `apply`, since members may differ in it."""

    @property
    def cluster(self) -> Cluster | None:
        """The one cluster object, once the cluster was initialised."""
        return next(iter(self.clusters.values()), None)

    def table(self, kind: Kind) -> Mapping[str, Any]:
        table: Mapping[str, Any] = getattr(self, _FIELD_OF[kind])
        return table

    def service_tasks(self, service_id: str) -> Iterator[Task]:
        for tasks in self.slots.get(service_id, {}).values():
            yield from tasks

    def tasks_on(self, node_id: str) -> Iterator[Task]:
        return (self.tasks[task_id] for task_id in self.node_tasks.get(node_id, ()))

    def put(self, item: AnyObject) -> None:
        """Insert or replace."""
        if isinstance(item, Task):
            self._put_task(item)
            return
        kind = KIND_OF[type(item)]
        old = self.table(kind).get(item.id)
        self._unindex(kind, old)
        self._write(kind, item)
        if isinstance(item, Node) and (old is None or old.spec != item.spec):
            self.node_specs[item.id] = item.meta.version
        if name := unique_name(item):
            self.ids_by_name[kind, name] = item.id
        if isinstance(item, Service):
            self.published.update(dict.fromkeys(ingress_ports(item), item.id))

    def remove(self, kind: Kind, object_id: str) -> None:
        if kind is Kind.TASK:
            self._remove_task(object_id)
            return
        self._unindex(kind, self.table(kind)[object_id])
        self.node_specs.pop(object_id, None)
        del self._table(kind)[object_id]

    def copy(self) -> Tables:
        """An independent copy (the objects are shared), to imagine changes on."""
        return Tables(
            index=self.index,
            clusters=dict(self.clusters),
            nodes=dict(self.nodes),
            services=dict(self.services),
            tasks=dict(self.tasks),
            networks=dict(self.networks),
            credentials=dict(self.credentials),
            audit=self.audit.copy(),
            join_tokens=dict(self.join_tokens),
            removed_nodes=dict(self.removed_nodes),
            service_revisions=dict(self.service_revisions),
            secrets=dict(self.secrets),
            configs=dict(self.configs),
            ids_by_name=dict(self.ids_by_name),
            slots={service_id: dict(slots) for service_id, slots in self.slots.items()},
            node_tasks={node_id: dict(tasks) for node_id, tasks in self.node_tasks.items()},
            unplaced=dict(self.unplaced),
            published=dict(self.published),
            node_specs=dict(self.node_specs),
        )

    def _table(self, kind: Kind) -> dict[str, Any]:
        table = self.table(kind)
        assert isinstance(table, dict)
        return table

    def _write(self, kind: Kind, item: AnyObject) -> None:
        self._table(kind)[item.id] = item

    def _unindex(self, kind: Kind, old: AnyObject | None) -> None:
        if old is None:
            return
        name = (kind, unique_name(old))
        if self.ids_by_name.get(name) == old.id:
            del self.ids_by_name[name]
        if isinstance(old, Service):
            for port in ingress_ports(old):
                if self.published.get(port) == old.id:
                    del self.published[port]

    def _put_task(self, task: Task) -> None:
        old = self.tasks.get(task.id)
        self.tasks[task.id] = task
        slots = self.slots.setdefault(task.service_id, {})
        key = slot_key(task)
        if old is None:
            slots[key] = (*slots.get(key, ()), task)
        else:
            assert slot_key(old) == key, (old, task)
            slots[key] = tuple(task if other.id == task.id else other for other in slots[key])
        if task.node_id and (old is None or old.node_id != task.node_id):
            self.node_tasks.setdefault(task.node_id, {})[task.id] = None
        if is_unplaced(task):
            self.unplaced[task.id] = task
        elif old is not None:
            self.unplaced.pop(task.id, None)

    def _remove_task(self, task_id: str) -> None:
        task = self.tasks.pop(task_id)
        self.unplaced.pop(task_id, None)
        slots = self.slots[task.service_id]
        key = slot_key(task)
        slots[key] = tuple(other for other in slots[key] if other.id != task_id)
        if not slots[key]:
            del slots[key]
        if not slots:
            del self.slots[task.service_id]
        if task.node_id:
            on_node = self.node_tasks[task.node_id]
            del on_node[task_id]
            if not on_node:
                del self.node_tasks[task.node_id]
