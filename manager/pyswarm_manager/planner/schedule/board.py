"""The board: every node as the scheduler sees it during one plan, and what a group of tasks asks of a node.

Filters are small functions over a seat and a demand; each has its words for the explanation. The order of `FILTERS` is
the order in which a refusal is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyswarm_common.model import Availability, Node, NodeState, TaskSpec
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.ledger import NodeUsage
from pyswarm_manager.planner.schedule.constraints import parse_constraints, satisfies
from pyswarm_manager.store.tables import Port


class Seat:
    """A node and what its tasks use; the usage grows as the plan places tasks."""

    __slots__ = ("index", "memory_bytes", "nano_cpus", "node", "open", "usage")

    def __init__(self, index: int, node: Node, usage: NodeUsage) -> None:
        self.index = index
        self.node = node
        self.usage = usage
        self.open = takes_tasks(node)
        self.nano_cpus = node.description.resources.nano_cpus
        self.memory_bytes = node.description.resources.memory_bytes

    def load(self) -> float:
        """Number of tasks, and between equals the larger share of cpu or memory that is reserved."""
        usage = self.usage
        if not usage.nano_cpus and not usage.memory_bytes:
            return usage.active
        cpu = usage.nano_cpus / self.nano_cpus if self.nano_cpus else 0.0
        memory = usage.memory_bytes / self.memory_bytes if self.memory_bytes else 0.0
        return usage.active + min(0.999, max(cpu, memory))


@dataclass(frozen=True, slots=True)
class Demand:
    """What all tasks of a group ask of a node. Groups with equal demands share one pass over the nodes."""

    constraints: tuple[str, ...]
    nano_cpus: int
    memory_bytes: int
    ports: tuple[Port, ...]

    @classmethod
    def of(cls, spec: TaskSpec, ports: tuple[Port, ...]) -> Demand:
        reserved = spec.resources.reservations
        return cls(spec.placement.constraints, reserved.nano_cpus, reserved.memory_bytes, ports)


def takes_tasks(node: Node) -> bool:
    return node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE


def has_cpu(seat: Seat, demand: Demand) -> bool:
    return not demand.nano_cpus or seat.usage.nano_cpus + demand.nano_cpus <= seat.nano_cpus


def has_memory(seat: Seat, demand: Demand) -> bool:
    return not demand.memory_bytes or seat.usage.memory_bytes + demand.memory_bytes <= seat.memory_bytes


def has_ports(seat: Seat, demand: Demand) -> bool:
    return not any(port in seat.usage.ports for port in demand.ports)


def meets_constraints(seat: Seat, demand: Demand) -> bool:
    return not demand.constraints or satisfies(seat.node, parse_constraints(demand.constraints))


def fits(seat: Seat, demand: Demand) -> bool:
    """What may change while a plan places tasks: resources and ports."""
    return has_cpu(seat, demand) and has_memory(seat, demand) and has_ports(seat, demand)


Filter = Callable[[Seat, Demand], bool]

# What a node fails with, in docker's words; "{}" is "1 node" or "3 nodes".
FILTERS: tuple[tuple[Filter, str], ...] = (
    (lambda seat, demand: seat.open, "{} not available for new tasks"),
    (meets_constraints, "scheduling constraints not satisfied on {}"),
    (has_ports, "host-mode port already in use on {}"),
    (has_cpu, "insufficient cpu on {}"),
    (has_memory, "insufficient memory on {}"),
)
MAX_REPLICAS = "max replicas per node limit reached on {}"


class Board:
    def __init__(self, draft: Draft) -> None:
        usage = draft.ledger.usage_of
        self.seats = [Seat(i, node, usage(node.id)) for i, node in enumerate(draft.tables.nodes.values())]
        self._by_id: dict[str, Seat] = {}

    def seat(self, node_id: str) -> Seat | None:
        if not self._by_id:
            self._by_id = {seat.node.id: seat for seat in self.seats}
        return self._by_id.get(node_id)


def explain(seats: list[Seat], demand: Demand, crowded: Callable[[str], bool] | None) -> str:
    """Why none of the nodes takes a task of this demand, counted over the nodes.

    `crowded` tells whether a node has its maximum of the service's replicas already.
    """
    counts: dict[str, int] = {}
    for seat in seats:
        words = _first_refusal(seat, demand, crowded)
        counts[words] = counts.get(words, 0) + 1
    order = [words for _, words in FILTERS] + [MAX_REPLICAS]
    parts = [words.format(_nodes(counts[words])) for words in order if words in counts]
    return f"no suitable node ({', '.join(parts) or 'there are no nodes'})"


def _first_refusal(seat: Seat, demand: Demand, crowded: Callable[[str], bool] | None) -> str:
    for passes, words in FILTERS:
        if not passes(seat, demand):
            return words
    return MAX_REPLICAS if crowded is not None and crowded(seat.node.id) else ""


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
