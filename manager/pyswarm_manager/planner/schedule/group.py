"""A group: the waiting tasks of one service and one spec, and what decides where they go."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_common.model import PlacementStrategy, PortConfig, PublishMode, Service, TaskSpec
from pyswarm_common.network_options import ENCRYPTED, is_encrypted
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.schedule.affinity import Affinities, affinities_of
from pyswarm_manager.planner.schedule.backoff import failing_nodes
from pyswarm_manager.planner.schedule.board import AFFINITY, MAX_REPLICAS, fits
from pyswarm_manager.planner.schedule.demand import Demand
from pyswarm_manager.planner.schedule.taints import is_second_choice
from pyswarm_manager.planner.seat import Seat
from pyswarm_manager.store.tables import NODE_NETWORKS, Port

NO_LIMIT = 1 << 62
OVERLAY = "overlay"

Rank = tuple[int, bool, int, int, float]
"""Lowest first: failures there, second choice, not wished for, tasks of the service, load."""


class Group:
    __slots__ = (
        "affinities", "candidates", "counts", "demand", "failing", "limit", "packs", "priority", "service", "spec"
    )  # fmt: skip

    def __init__(self, draft: Draft, service: Service, spec: TaskSpec, ports: tuple[Port, ...]) -> None:
        self.service = service
        self.spec = spec
        self.demand = demand_of(draft, spec, ports)
        self.counts = draft.ledger.nodes_of(service.id)
        """Wanted tasks of the service by node; grows as tasks are placed."""
        self.limit = spec.placement.max_replicas_per_node or NO_LIMIT
        self.priority = service.spec.priority
        self.packs = packs(draft, spec)
        self.failing = failing_nodes(draft.ledger, service, draft.now)
        self.affinities: Affinities | None = None
        """Set when its turn comes: it depends on where those before it went."""
        self.candidates: list[Candidate] = []

    def begin(self, draft: Draft) -> None:
        """Its turn has come."""
        self.affinities = affinities_of(draft, self.service)

    @property
    def is_plain(self) -> bool:
        """Whether all nodes are alike to it but for their load: then it shares its order with other groups."""
        return not (self.failing or self.affinities is not None or self.spec.placement.preferences)

    def put(self, candidate: Candidate, seat: Seat) -> bool:
        """Bind the task to the node, and count it there as the ledger would. True: other nodes became more welcome."""
        node_id = seat.node.id
        candidate.node_id = node_id
        candidate.placed = True
        usage, demand = seat.usage, self.demand
        usage.active += 1
        if demand.nano_cpus or demand.memory_bytes or demand.pids:
            usage.nano_cpus += demand.nano_cpus
            usage.memory_bytes += demand.memory_bytes
            usage.pids += demand.pids
        for port in demand.ports:
            usage.ports[port] = usage.ports.get(port, 0) + 1
        if demand.generic:
            candidate.generic_resources = tuple(item for kind, n in demand.generic for item in seat.claim(kind, n))
            usage.count_generic(candidate.generic_resources, 1)
        self.counts[node_id] = self.counts.get(node_id, 0) + 1
        return self.affinities is not None and self.affinities.placed(seat)

    def is_crowded(self, node_id: str) -> bool:
        return self.counts.get(node_id, 0) >= self.limit

    def may_use(self, seat: Seat) -> bool:
        """Whether there is room for one more task of the group, on a node that may host it."""
        if not fits(seat, self.demand) or self.is_crowded(seat.node.id):
            return False
        return self.affinities is None or self.affinities.allows(seat)

    def refusal(self, seat: Seat) -> str:
        """What keeps the group's tasks from a node that has room for them."""
        if self.is_crowded(seat.node.id):
            return MAX_REPLICAS
        return AFFINITY if self.affinities is not None and not self.affinities.allows(seat) else ""

    def rank(self, seat: Seat) -> Rank:
        node = seat.node
        wish = self.affinities.wish(seat) if self.affinities is not None else 0
        rather_not = bool(node.spec.taints) and is_second_choice(node, self.demand.fixed.tolerations)
        if self.packs:
            return (self.failing.get(node.id, 0), rather_not, -wish, 0, packed_load(seat))
        return (self.failing.get(node.id, 0), rather_not, -wish, self.counts.get(node.id, 0), seat.load())


def packed_load(seat: Seat) -> float:
    """For filling nodes: the fullest first, and between equals the one with most tasks."""
    return -(seat.fullness() + 1e-9 * seat.usage.active)


def demand_of(draft: Draft, spec: TaskSpec, ports: tuple[Port, ...]) -> Demand:
    def driver_of(network_id: str) -> str:
        network = draft.network(network_id) if network_id not in NODE_NETWORKS else None
        driver = network.spec.driver if network is not None else ""
        if driver != OVERLAY or network is None:
            return driver
        return ENCRYPTED if is_encrypted(network.spec.options) else ""

    return Demand.of(spec, ports, driver_of)


def packs(draft: Draft, spec: TaskSpec) -> bool:
    """Whether nodes are filled one after the other: the service's strategy, or else the cluster's."""
    strategy = spec.placement.strategy
    if strategy is PlacementStrategy.DEFAULT:
        return draft.packs_by_default
    return strategy is PlacementStrategy.BINPACK


def host_ports_of(ports: Iterable[PortConfig]) -> tuple[Port, ...]:
    return tuple(
        (port.protocol, port.published_port)
        for port in ports
        if port.publish_mode is PublishMode.HOST and port.published_port
    )
