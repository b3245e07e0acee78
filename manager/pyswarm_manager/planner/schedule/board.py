"""The board: every node as the scheduler sees it during one plan, and the filters that a node must pass.

Filters are small functions over a seat and a demand; each has its words for the explanation. The order of `FILTERS` is
the order in which a refusal is reported: first what only the node decides, then what its tasks leave of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyswarm_common.model import Node, Platform, Plugin
from pyswarm_common.network_options import ENCRYPTED
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.schedule.constraints import (
    Operator,
    architecture,
    node_value,
    parse_constraints,
    satisfies,
)
from pyswarm_manager.planner.schedule.demand import Demand, Fixed
from pyswarm_manager.planner.schedule.taints import is_second_choice, repels
from pyswarm_manager.planner.seat import Seat

_INDEXED_FROM = 64
"""With fewer nodes, looking at each is as fast."""


def is_open(seat: Seat, demand: Demand) -> bool:
    del demand
    return seat.open


def meets_constraints(seat: Seat, demand: Demand) -> bool:
    constraints = demand.fixed.constraints
    return not constraints or satisfies(seat.node, parse_constraints(constraints))


def has_platform(seat: Seat, demand: Demand) -> bool:
    platforms = demand.fixed.platforms
    return not platforms or any(_runs(seat.node, platform) for platform in platforms)


def lets_in(seat: Seat, demand: Demand) -> bool:
    return not seat.node.spec.taints or not repels(seat.node, demand.fixed.tolerations)


def can_encrypt(seat: Seat, demand: Demand) -> bool:
    """Said apart from plugins, which nobody would look for WireGuard among."""
    return _ENCRYPTION not in demand.fixed.plugins or has_plugin(seat.node, _ENCRYPTION)


def has_plugins(seat: Seat, demand: Demand) -> bool:
    return all(has_plugin(seat.node, plugin) for plugin in demand.fixed.plugins)


def has_devices(seat: Seat, demand: Demand) -> bool:
    """Nodes that say nothing of their devices are believed to have them: the agent will tell."""
    known = seat.node.description.devices
    return not demand.fixed.devices or not known or all(device in known for device in demand.fixed.devices)


def has_ports(seat: Seat, demand: Demand) -> bool:
    return not any(port in seat.usage.ports for port in demand.ports)


def has_cpu(seat: Seat, demand: Demand) -> bool:
    return not demand.nano_cpus or seat.usage.nano_cpus + demand.nano_cpus <= seat.nano_cpus


def has_memory(seat: Seat, demand: Demand) -> bool:
    return not demand.memory_bytes or seat.usage.memory_bytes + demand.memory_bytes <= seat.memory_bytes


def has_pids(seat: Seat, demand: Demand) -> bool:
    return not demand.pids or seat.usage.pids + demand.pids <= seat.pids


def has_generic(seat: Seat, demand: Demand) -> bool:
    return all(seat.free_of(kind) >= count for kind, count in demand.generic)


_ENCRYPTION = Plugin("Network", ENCRYPTED)
Filter = Callable[[Seat, Demand], bool]

# What a node fails with, in docker's words; "{}" is "1 node" or "3 nodes".
FIXED_FILTERS: tuple[tuple[Filter, str], ...] = (
    (is_open, "{} not available for new tasks"),
    (meets_constraints, "scheduling constraints not satisfied on {}"),
    (has_platform, "unsupported platform on {}"),
    (lets_in, "taints not tolerated on {}"),
    (can_encrypt, "no encryption of networks (WireGuard) on {}"),
    (has_plugins, "missing plugin on {}"),
    (has_devices, "missing device on {}"),
)
ROOM_FILTERS: tuple[tuple[Filter, str], ...] = (
    (has_ports, "host-mode port already in use on {}"),
    (has_cpu, "insufficient cpu on {}"),
    (has_memory, "insufficient memory on {}"),
    (has_pids, "insufficient pids on {}"),
    (has_generic, "insufficient generic resources on {}"),
)
FILTERS = FIXED_FILTERS + ROOM_FILTERS
MAX_REPLICAS = "max replicas per node limit reached on {}"
AFFINITY = "affinity to other services not satisfied on {}"

Refusal = Callable[[Seat], str]
"""What else keeps a group from a node: the words, or nothing."""


def fits(seat: Seat, demand: Demand) -> bool:
    """What may change while a plan places tasks: resources and ports."""
    usage = seat.usage
    if demand.nano_cpus and usage.nano_cpus + demand.nano_cpus > seat.nano_cpus:
        return False
    if demand.memory_bytes and usage.memory_bytes + demand.memory_bytes > seat.memory_bytes:
        return False
    if demand.pids and usage.pids + demand.pids > seat.pids:
        return False
    if demand.ports and not has_ports(seat, demand):
        return False
    return not demand.generic or has_generic(seat, demand)


def may_host(seat: Seat, demand: Demand) -> bool:
    """What no placement changes."""
    return all(passes(seat, demand) for passes, _ in FIXED_FILTERS)


class Board:
    """The seats, and for each `Fixed` those that pass; looked for once per plan."""

    def __init__(self, ledger: Ledger) -> None:
        self._by_id = ledger.seats
        self.seats: list[Seat] = list(ledger.seats.values())
        self._eligible: dict[Fixed, tuple[list[Seat], list[Seat]]] = {}
        self._by_value: dict[str, dict[str, list[Seat]]] = {}

    def seat(self, node_id: str) -> Seat | None:
        return self._by_id.get(node_id)

    def eligible(self, fixed: Fixed) -> tuple[list[Seat], list[Seat]]:
        """The nodes that may host such tasks, and those of them that are a second choice only."""
        found = self._eligible.get(fixed)
        if found is None:
            demand = Demand(fixed)
            first: list[Seat] = []
            second: list[Seat] = []
            for seat in self._likely(fixed):
                if seat.open and may_host(seat, demand):
                    rather_not = seat.node.spec.taints and is_second_choice(seat.node, fixed.tolerations)
                    (second if rather_not else first).append(seat)
            found = self._eligible[fixed] = (first, second)
        return found

    def _likely(self, fixed: Fixed) -> Iterable[Seat]:
        """The seats that the most telling constraint leaves: many services that are each bound to one node or zone
        must not each look at all nodes."""
        best: list[Seat] = self.seats
        if len(best) < _INDEXED_FROM:
            return best
        for constraint in parse_constraints(fixed.constraints):
            if constraint.operator is Operator.EQUAL and not constraint.subnets:
                seats = self._with_value(constraint.key).get(constraint.values[0], [])
                best = seats if len(seats) < len(best) else best
        return best

    def _with_value(self, key: str) -> dict[str, list[Seat]]:
        index = self._by_value.get(key)
        if index is None:
            index = self._by_value[key] = {}
            for seat in self.seats:
                value = node_value(seat.node, key)
                if value is not None:
                    index.setdefault(value.casefold(), []).append(seat)
        return index


def explain(seats: Iterable[Seat], demand: Demand, refusal: Refusal | None) -> str:
    """Why none of the nodes takes a task of this demand, counted over the nodes."""
    counts: dict[str, int] = {}
    for seat in seats:
        words = first_refusal(seat, demand, refusal)
        counts[words] = counts.get(words, 0) + 1
    return sentence(counts)


def sentence(counts: dict[str, int]) -> str:
    """What keeps most nodes away comes first, as in docker."""
    order = [words for _, words in FILTERS] + [MAX_REPLICAS, AFFINITY]
    ranked = sorted((words for words in order if words in counts), key=lambda words: -counts[words])
    parts = [words.format(_nodes(counts[words])) for words in ranked]
    return f"no suitable node ({'; '.join(parts) or 'there are no nodes'})"


def first_refusal(seat: Seat, demand: Demand, refusal: Refusal | None) -> str:
    for passes, words in FILTERS:
        if not passes(seat, demand):
            return words
    return refusal(seat) if refusal is not None else ""


def _runs(node: Node, platform: Platform) -> bool:
    """An empty name stands for every one. A node that has not described itself runs nothing."""
    described = node.description
    return (not platform.os or platform.os == described.os.casefold()) and (
        not platform.architecture or platform.architecture == architecture(described.architecture)
    )


def has_plugin(node: Node, plugin: Plugin) -> bool:
    """Nodes that say nothing of plugins of this type are believed to have them: the agent will tell."""
    known = [have.name for have in node.description.plugins if have.type == plugin.type]
    return not known or plugin.name in known


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
