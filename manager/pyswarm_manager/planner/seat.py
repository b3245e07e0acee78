"""Seats: each node as the scheduler sees it, with what its tasks use of it.

Kept in the ledger and by it, so that a plan does not look at every node to learn what has not changed. Decides nothing;
`schedule` asks it whether there is room.
"""

from __future__ import annotations

from pyswarm_common.model import (
    Availability,
    GenericResource,
    Node,
    NodeState,
    PublishMode,
    Resources,
    Task,
)
from pyswarm_manager.store.tables import Port

Claim = tuple[str, str]
"""A generic resource: its kind, and which one of it; the latter is empty for what is only counted."""


class NodeUsage:
    """What the tasks of one node use."""

    __slots__ = ("active", "generic", "memory_bytes", "nano_cpus", "pids", "ports")

    def __init__(self) -> None:
        self.active = 0
        self.nano_cpus = 0
        self.memory_bytes = 0
        self.pids = 0
        self.ports: dict[Port, int] = {}
        self.generic: dict[Claim, int] = {}
        """How much of each discrete kind ("ssd", ""), and which named ones ("gpu", "UUID1")."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeUsage) and _values(self) == _values(other)

    __hash__ = None  # type: ignore[assignment]  # it changes: no key for a dict

    def add(self, task: Task, sign: int = 1) -> None:
        """Count in what the task has reserved (or, with sign -1, out)."""
        reserved = task.spec.resources.reservations
        self.nano_cpus += sign * reserved.nano_cpus
        self.memory_bytes += sign * reserved.memory_bytes
        self.pids += sign * reserved.pids
        for port in host_ports(task):
            self.count_port(port, sign)
        if task.generic_resources:
            self.count_generic(task.generic_resources, sign)

    def count_generic(self, resources: tuple[GenericResource, ...], sign: int) -> None:
        for resource in resources:
            self.count_claim((resource.kind, resource.value), sign * (1 if resource.value else resource.count))

    def count_port(self, port: Port, sign: int) -> None:
        count(self.ports, port, sign)

    def count_claim(self, claim: Claim, sign: int) -> None:
        count(self.generic, claim, sign)

    def copy(self) -> NodeUsage:
        copied = NodeUsage()
        copied.active, copied.nano_cpus, copied.memory_bytes = self.active, self.nano_cpus, self.memory_bytes
        copied.pids, copied.ports, copied.generic = self.pids, dict(self.ports), dict(self.generic)
        return copied

    def as_resources(self) -> Resources:
        generic = tuple(
            GenericResource(kind=kind, value=value, count=0 if value else count)
            for (kind, value), count in sorted(self.generic.items())
        )
        return Resources(nano_cpus=self.nano_cpus, memory_bytes=self.memory_bytes, pids=self.pids, generic=generic)


def _values(usage: NodeUsage) -> tuple[object, ...]:
    return (usage.active, usage.nano_cpus, usage.memory_bytes, usage.pids, usage.ports, usage.generic)


def host_ports(task: Task) -> tuple[Port, ...]:
    return tuple(
        (port.protocol, port.published_port)
        for port in task.ports
        if port.publish_mode is PublishMode.HOST and port.published_port
    )


def takes_tasks(node: Node) -> bool:
    return node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE


class Seat:
    """A node and what its tasks use; the usage grows as a plan places tasks."""

    __slots__ = ("discrete", "index", "memory_bytes", "named", "nano_cpus", "node", "open", "pids", "usage")

    def __init__(self, index: int, node: Node, usage: NodeUsage) -> None:
        self.index = index
        self.node = node
        self.usage = usage
        self.open = takes_tasks(node)
        resources = node.description.resources
        self.nano_cpus = resources.nano_cpus
        self.memory_bytes = resources.memory_bytes
        self.pids = resources.pids
        self.discrete: dict[str, int] = {}
        self.named: dict[str, list[str]] = {}
        for resource in resources.generic:
            if resource.value:
                self.named.setdefault(resource.kind, []).append(resource.value)
            else:
                self.discrete[resource.kind] = self.discrete.get(resource.kind, 0) + resource.count

    def load(self) -> float:
        """Number of tasks, and between equals the larger share of cpu or memory that is reserved."""
        usage = self.usage
        if not usage.nano_cpus and not usage.memory_bytes:
            return usage.active
        return usage.active + min(0.999, self.fullness())

    def fullness(self) -> float:
        """The larger share of cpu or memory that is reserved."""
        usage = self.usage
        cpu = usage.nano_cpus / self.nano_cpus if self.nano_cpus else 0.0
        memory = usage.memory_bytes / self.memory_bytes if self.memory_bytes else 0.0
        return max(cpu, memory)

    def free_of(self, kind: str) -> int:
        """How much of a generic resource nobody has."""
        if kind in self.named:
            # What is kept for a task that waits for the end of others has no names yet.
            return len(self.free_names(kind)) - self.usage.generic.get((kind, ""), 0)
        return self.discrete.get(kind, 0) - self.usage.generic.get((kind, ""), 0)

    def free_names(self, kind: str) -> list[str]:
        return [value for value in self.named.get(kind, ()) if (kind, value) not in self.usage.generic]

    def claim(self, kind: str, count: int) -> tuple[GenericResource, ...]:
        """What a task that asks for so many of the kind is given."""
        if kind in self.named:
            return tuple(GenericResource(kind=kind, value=value) for value in self.free_names(kind)[:count])
        return (GenericResource(kind=kind, count=count),)


def count(counts: dict[Port, int] | dict[str, int] | dict[Claim, int], key: Port | str | Claim, sign: int) -> None:
    counter: dict[Port | str | Claim, int] = counts  # type: ignore[assignment]  # only `key` is added
    count = counter.get(key, 0) + sign
    if count:
        counter[key] = count
    else:
        counter.pop(key, None)
