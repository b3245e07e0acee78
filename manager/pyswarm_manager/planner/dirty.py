"""What changed since the last plan, so that a plan looks at nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pyswarm_common.model import AnyObject, Cluster, Network, Node, Service, Task, TaskState
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import SlotKey, slot_key


@dataclass(slots=True)
class Dirty:
    """Names of what must be looked at. Dicts instead of sets: their order does not depend on the hash seed."""

    everything: bool = False
    services: dict[str, None] = field(default_factory=dict)
    """Look at the whole service."""
    slots: dict[tuple[str, SlotKey], None] = field(default_factory=dict)
    """Look at one slot of a service."""
    nodes: dict[str, None] = field(default_factory=dict)
    networks: dict[str, None] = field(default_factory=dict)
    room: bool = False
    """Something was freed or added: waiting tasks deserve another try."""

    def __bool__(self) -> bool:
        return bool(self.everything or self.services or self.slots or self.nodes or self.networks or self.room)

    def add_events(self, events: Iterable[Event]) -> None:
        for event in events:
            match event.object:
                case Task():
                    self._add_task(event)
                case Service() as service:
                    self.services[service.id] = None
                    self.room = self.room or event.new is None  # who waits for it should say that it is gone
                case Node() as node:
                    self.nodes[node.id] = None
                    self.room = True
                case Network() as network:
                    self.networks[network.id] = None
                    self.room = True
                case Cluster():
                    self._add_cluster(event)

    def merge(self, other: Dirty) -> None:
        self.everything = self.everything or other.everything
        self.room = self.room or other.room
        self.services.update(other.services)
        self.slots.update(other.slots)
        self.nodes.update(other.nodes)
        self.networks.update(other.networks)

    def _add_task(self, event: Event) -> None:
        old, new = event
        task = event.object
        assert isinstance(task, Task)
        self.slots[task.service_id, slot_key(task)] = None
        if isinstance(old, Task) and not old.status.state.is_terminal:
            assert new is None or isinstance(new, Task)
            if new is None or new.status.state.is_terminal:
                self.room = True
        if task.desired_state <= TaskState.RUNNING if new is None else _is_removed(old, task):
            self.services[task.service_id] = None  # somebody removed a wanted task: count the replicas again

    def _add_cluster(self, event: Event) -> None:
        before = event.old.spec if isinstance(event.old, Cluster) else None
        after = event.new.spec if isinstance(event.new, Cluster) else None
        if before != after:
            self.everything = True


def _is_removed(old: AnyObject | None, new: Task) -> bool:
    return new.desired_state is TaskState.REMOVE and isinstance(old, Task) and old.desired_state <= TaskState.RUNNING


def everything() -> Dirty:
    """For a new leader: it knows nothing of what its predecessor left undone."""
    return Dirty(everything=True)
