"""A cluster without machinery: tables, the planner, and agents that move tasks forward as they are told.

What the store's shell, Raft, the dispatcher and the agents do between two plans, as plain functions on one clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import msgspec

from pyswarm_common.model import (
    Availability,
    Cluster,
    ContainerSpec,
    GenericResource,
    Network,
    NetworkAttachmentSpec,
    NetworkSpec,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
    Resources,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.planner.dirty import Dirty, everything
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.plan import Plan, State, plan
from pyswarm_manager.store.apply import Applied, Refusal, apply
from pyswarm_manager.store.changes import (
    Change,
    ChangeSet,
    Create,
    SetNodeStatus,
    SetTaskStatus,
    Update,
    delete,
)
from pyswarm_manager.store.encoding import decode_change_set, encode_change_set
from pyswarm_manager.store.tables import Tables

GIB = 1 << 30
CORE = 1_000_000_000


class World:
    def __init__(self, seed: int = 0) -> None:
        self.tables = Tables()
        self.ledger = Ledger()
        self.dirty = everything()
        self.now = 1000.0
        self.rng = Random(seed)
        self.wakes: dict[tuple[str, int | str | None], float] = {}
        self._ids = 0
        self.apply(Create(Cluster(id="cluster")))

    # ---- what users do

    def node(
        self,
        name: str,
        *,
        role: NodeRole = NodeRole.WORKER,
        cpus: int = 4,
        memory: int = 8 * GIB,
        gpus: int = 0,
        **labels: str,
    ) -> Node:
        generic = tuple(GenericResource("gpu", value=f"gpu{number}") for number in range(gpus))
        node = Node(
            id=name,
            role=role,
            spec=NodeSpec(role=role, labels=labels),
            description=NodeDescription(
                hostname=name,
                os="linux",
                architecture="x86_64",
                resources=Resources(nano_cpus=cpus * CORE, memory_bytes=memory, generic=generic),
            ),
            status=NodeStatus(state=NodeState.READY, address=f"192.168.0.{len(self.tables.nodes) + 1}"),
        )
        self.apply(Create(node))
        return self.tables.nodes[name]

    def network(self, name: str, **spec: object) -> Network:
        self.apply(Create(Network(id=name, spec=NetworkSpec(name=name, driver="overlay", **spec))))  # type: ignore[arg-type]
        return self.tables.networks[name]

    def service(
        self,
        name: str,
        replicas: int | None = None,
        *,
        image: str = "img:1",
        networks: Iterable[str] = (),
        **spec: object,
    ) -> Service:
        task = spec.pop("task", None) or TaskSpec(
            container=ContainerSpec(image=image),
            networks=tuple(NetworkAttachmentSpec(target=target) for target in networks),
        )
        self.apply(Create(Service(id=name, spec=ServiceSpec(name=name, replicas=replicas, task=task, **spec))))  # type: ignore[arg-type]
        return self.tables.services[name]

    def respec(self, name: str, /, **changes: object) -> Service:
        service = self.tables.services[name]
        spec = msgspec.structs.replace(service.spec, **changes)
        self.apply(Update(msgspec.structs.replace(service, spec=spec)))
        return self.tables.services[name]

    def retask(self, name: str, **changes: object) -> Service:
        return self.respec(name, task=msgspec.structs.replace(self.tables.services[name].spec.task, **changes))

    def image(self, name: str, image: str) -> Service:
        return self.retask(name, container=ContainerSpec(image=image))

    def remove(self, item: Service | Network | Node) -> None:
        self.apply(delete(item))

    def respec_node(self, name: str, **changes: object) -> None:
        node = self.tables.nodes[name]
        self.apply(Update(msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, **changes))))

    def drain(self, name: str, availability: Availability = Availability.DRAIN) -> None:
        self.respec_node(name, availability=availability)

    def node_state(self, name: str, state: NodeState) -> None:
        status = self.tables.nodes[name].status
        self.apply(SetNodeStatus(name, msgspec.structs.replace(status, state=state, changed_at=self.now)))

    # ---- what agents do

    def report(self, task: Task, state: TaskState, message: str = "") -> None:
        self.apply(SetTaskStatus(task.id, TaskStatus(timestamp=self.now, state=state, message=message)))

    def agents_step(self, *, only: Iterable[str] | None = None) -> bool:
        """Every agent moves each of its tasks one state on, as far as it is told; returns whether anything moved."""
        changes = []
        for task in self.tables.tasks.values():
            node = self.tables.nodes.get(task.node_id)
            if node is None or node.status.state is not NodeState.READY or (only is not None and node.id not in only):
                continue
            state = next_state(task)
            if state is not None:
                changes.append(SetTaskStatus(task.id, TaskStatus(timestamp=self.now, state=state)))
        if changes:
            self.apply(*changes)
        return bool(changes)

    # ---- what the leader does

    def apply(self, *changes: Change) -> None:
        result = self.try_apply(*changes)
        assert isinstance(result, Applied), result

    def try_apply(self, *changes: Change) -> Applied | Refusal:
        data = encode_change_set(ChangeSet(changes, self.now))
        result = apply(self.tables, self.tables.index + 1, decode_change_set(data))
        if isinstance(result, Applied):
            self.ledger.observe_events(result.events)
            self.dirty.add_events(result.events)
        return result

    def plan(self, *, commit: bool = True) -> Plan:
        """One plan of what is dirty, committed as a whole."""
        self._add_due()
        dirty, self.dirty = self.dirty, Dirty()
        found = plan(State(self.tables, self.ledger, self.is_told), dirty, self.now, self.rng.random, self.new_id)
        self.dirty.merge(found.unfinished)
        for key, at in found.wakes.items():
            self.wakes[key] = min(at, self.wakes.get(key, at))
        if commit and found.changes:
            self.apply(*found.changes)
        return found

    def plan_again(self) -> Plan:
        """A plan of everything from a ledger made anew, not committed: as a new leader would begin."""
        state = State(self.tables, Ledger.of(self.tables), self.is_told)
        return plan(state, everything(), self.now, self.rng.random, self.new_id)

    def is_told(self, task: Task) -> bool:
        """Whether every load balancer knows the task: here at once."""
        return True

    def plan_all(self) -> None:
        while self.dirty or self._is_due():
            self.plan()

    def settle(self, seconds: float = 0.0) -> None:
        """Let planner and agents go on until nothing moves, for so long by the clock."""
        end = self.now + seconds
        while True:
            for _ in range(500):
                self.plan_all()
                if not self.agents_step():
                    break
            else:
                raise AssertionError("the cluster does not come to rest")
            next_wake = min(self.wakes.values(), default=None)
            if next_wake is None or next_wake > end:
                self.now = end
                return
            self.now = max(self.now, next_wake)

    def new_id(self) -> str:
        self._ids += 1
        return f"t{self._ids}"

    # ---- what tests look at

    def tasks(self, service: str, *, wanted: bool = True) -> list[Task]:
        found = list(self.tables.service_tasks(service))
        return [task for task in found if not wanted or task.desired_state <= TaskState.RUNNING]

    def running(self, service: str) -> list[Task]:
        return [task for task in self.tasks(service) if task.status.state is TaskState.RUNNING]

    def _is_due(self) -> bool:
        return any(at <= self.now for at in self.wakes.values())

    def _add_due(self) -> None:
        for key in [key for key, at in self.wakes.items() if at <= self.now]:
            del self.wakes[key]
            service_id, slot = key
            if slot is None:
                self.dirty.services[service_id] = None
            else:
                self.dirty.slots[service_id, slot] = None


_STEPS = (
    TaskState.ASSIGNED,
    TaskState.ACCEPTED,
    TaskState.PREPARING,
    TaskState.READY,
    TaskState.STARTING,
    TaskState.RUNNING,
)


def next_state(task: Task) -> TaskState | None:
    """What a healthy agent reports next of a task; None if it has done what it was told."""
    state = task.status.state
    if state not in _STEPS:
        return None
    if task.desired_state > TaskState.RUNNING:
        return TaskState.SHUTDOWN
    if state >= task.desired_state or state is TaskState.RUNNING:
        return None
    return _STEPS[_STEPS.index(state) + 1]
