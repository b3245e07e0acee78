"""The ledger: what is in use, added up: resources and ports of nodes, addresses, VNIs, published ports.

Derived from the tables and never the truth itself: `Ledger.of(tables)` builds it, `observe` keeps it up with the events
of commits, and undoing an observation is observing it the other way round. During a plan it also counts what the plan
has given out so far; the plan takes that back when it is done.

What counts: a task uses its node's resources and host ports from ASSIGNED until it has ended, and its addresses from
when it got them until it has ended, also on a node that is down. For spreading, only tasks that are still wanted count.
"""

from __future__ import annotations

from typing import Any

from pyswarm_common.model import (
    Availability,
    Network,
    NetworkAttachment,
    Node,
    RebalanceState,
    Resources,
    Service,
    ServiceMode,
    Task,
    TaskState,
)
from pyswarm_manager.planner.allocate.addresses import AddressBook, Position, Range, address_number
from pyswarm_manager.planner.pending import observe_awaited, observe_restart
from pyswarm_manager.planner.seat import NodeUsage, Seat, count
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.static_addresses import numbers
from pyswarm_manager.store.tables import Port, Tables

_ASSIGNED, _RUNNING = TaskState.ASSIGNED, TaskState.RUNNING
_FAILED = (TaskState.FAILED, TaskState.REJECTED)

Failure = tuple[str, float, int]
"""Node, time of the end, spec version."""


def is_rebalancing(service: Service) -> bool:
    """Whether its tasks are being moved, or somebody asked for it."""
    return service.rebalance_status is not None and service.rebalance_status.state is RebalanceState.RUNNING


def avoided_services(service: Service) -> tuple[str, ...]:
    """Names of the services that its tasks must not be near."""
    return tuple(
        dict.fromkeys(wish.service for wish in service.spec.task.placement.affinities if wish.anti and not wish.weight)
    )


def reserved_on(tables: Tables, node_id: str) -> Resources:
    """What `Ledger.reserved` says, for those who have tables and no ledger: it walks over the tasks of the node."""
    usage = NodeUsage()
    for task in tables.tasks_on(node_id):
        if _ASSIGNED <= task.status.state <= _RUNNING:
            usage.add(task)
    return usage.as_resources()


class Ledger:
    __slots__ = (
        "_marks",
        "_next_seat",
        "avoiders",
        "awaited",
        "books",
        "draining",
        "failures",
        "global_services",
        "ingress_id",
        "ports",
        "priorities",
        "rebalancing",
        "restarting",
        "routes",
        "seats",
        "service_nodes",
        "usage",
        "vnis",
    )

    def __init__(self) -> None:
        self.usage: dict[str, NodeUsage] = {}
        self.service_nodes: dict[str, dict[str, int]] = {}
        """Wanted tasks by service id and node id."""
        self.books: dict[str, AddressBook] = {}
        self._marks: dict[str, list[tuple[Range, Position]]] | None = None
        """During a plan, where the address ranges that it touched went on before."""
        self.routes: dict[str, dict[str, None]] = {}
        """Ids of the nodes that route the subnet themselves."""
        self.ingress_id = ""
        """The ingress network, whose addresses nodes hold too; empty until it is seen."""
        self.vnis: dict[int, str] = {}
        self.ports: dict[Port, dict[str, None]] = {}
        """Ids of the services that were given the published port."""
        self.global_services: dict[str, None] = {}
        self.priorities: dict[str, int] = {}
        """Of the services that have one."""
        self.rebalancing: dict[str, None] = {}
        """Services whose tasks may be moved when a node comes, or are to be moved now."""
        self.avoiders: dict[str, dict[str, None]] = {}
        """Ids of the services that must not be near the service of that name."""
        self.failures: dict[str, dict[str, Failure]] = {}
        """Failed tasks in the history, by service id and task id."""
        self.seats: dict[str, Seat] = {}
        """By node id."""
        self._next_seat = 0
        self.draining: dict[str, None] = {}
        """Nodes whose tasks are to leave."""
        self.awaited: dict[str, dict[str, None]] = {}
        """Ids of the services whose first tasks wait for the service of that name."""
        self.restarting: dict[str, dict[str, None]] = {}
        """Ids of the tasks that users asked to restart, by service id."""

    @classmethod
    def of(cls, tables: Tables) -> Ledger:
        ledger = cls()
        for table in (tables.networks, tables.nodes, tables.services):
            for item in table.values():
                ledger.observe(None, item)
        for task in tables.tasks.values():
            ledger.observe_task(None, task)
        return ledger

    def observe_events(self, events: tuple[Event, ...]) -> None:
        for old, new in events:
            self.observe(old, new)

    def observe(self, old: Any, new: Any) -> None:
        """One object changed from `old` to `new`; None is for "was not" and "is no more"."""
        match new if new is not None else old:
            case Task():
                self.observe_task(old, new)
            case Node():
                self._observe_node(old, new)
            case Service():
                self._observe_service(old, new)
            case Network():
                self._observe_network(old, new)
            case _:
                pass  # the cluster object uses nothing

    def observe_task(self, old: Task | None, new: Task | None) -> None:
        if (old is not None and old.restart_requested) or (new is not None and new.restart_requested):
            observe_restart(self.restarting, old, new)
        if old is not None and new is not None and _counts_the_same(old, new):
            return
        if old is not None:
            self._count_task(old, -1)
        if new is not None:
            self._count_task(new, 1)

    def reserved(self, node_id: str) -> Resources:
        """What the tasks of the node have reserved of it."""
        usage = self.usage.get(node_id)
        return usage.as_resources() if usage is not None else Resources()

    def release(self, networks: tuple[NetworkAttachment, ...]) -> None:
        """Give back addresses of a task that is not made."""
        for attachment in networks:
            self._count_addresses(attachment.network_id, attachment.addresses, -1)

    def usage_of(self, node_id: str) -> NodeUsage:
        usage = self.usage.get(node_id)
        if usage is None:
            usage = self.usage[node_id] = NodeUsage()
        return usage

    def book(self, network_id: str) -> AddressBook:
        book = self.books.get(network_id)
        if book is None:
            book = self.books[network_id] = AddressBook()
        if self._marks is not None and network_id not in self._marks:
            self._marks[network_id] = [(part, part.position()) for part in book.ranges]
        return book

    def nodes_of(self, service_id: str) -> dict[str, int]:
        nodes = self.service_nodes.get(service_id)
        if nodes is None:
            nodes = self.service_nodes[service_id] = {}
        return nodes

    def begin_plan(self) -> None:
        """From here on addresses are given out that may never be committed."""
        self._marks = {}

    def end_plan(self) -> None:
        """What the plan counted is taken back: the ranges go on where they did before."""
        marks, self._marks = self._marks or {}, None
        for positions in marks.values():
            for part, position in positions:
                part.go_back(position)

    def _count_task(self, task: Task, sign: int) -> None:
        if task.status.state > _RUNNING:
            self._count_failure(task, sign)
            return
        for attachment in task.networks:
            self._count_addresses(attachment.network_id, attachment.addresses, sign)
        if task.status.state < _ASSIGNED:
            return
        usage = self.usage_of(task.node_id)
        usage.add(task, sign)
        if task.desired_state <= _RUNNING:
            usage.active += sign
            count(self.nodes_of(task.service_id), task.node_id, sign)

    def _count_failure(self, task: Task, sign: int) -> None:
        if task.status.state not in _FAILED or not task.node_id:
            return
        failures = self.failures.setdefault(task.service_id, {})
        if sign > 0:
            failures[task.id] = (task.node_id, task.ended_at, task.spec_version)
            return
        failures.pop(task.id, None)
        if not failures:
            del self.failures[task.service_id]

    def _count_addresses(self, network_id: str, addresses: tuple[str, ...], sign: int) -> None:
        if not addresses:
            return
        book = self.book(network_id)
        for address in addresses:
            number = address_number(address)
            if sign > 0:
                book.hold(number)
            else:
                book.release(number)

    def _observe_node(self, old: Node | None, new: Node | None) -> None:
        self._observe_seat(old, new)
        if new is not None and is_drained(new):
            self.draining[new.id] = None
        elif old is not None:
            self.draining.pop(old.id, None)
        before = old.ingress_addresses if old is not None else ()
        after = new.ingress_addresses if new is not None else ()
        if before != after:
            self._count_addresses(self.ingress_id, before, -1)
            self._count_addresses(self.ingress_id, after, 1)
        routed = old.description.routed_subnets if old is not None else ()
        routes = new.description.routed_subnets if new is not None else ()
        if routed != routes:
            node_id = (new or old).id  # type: ignore[union-attr]  # one of the two is there
            self._count_routes(routed, node_id, -1)
            self._count_routes(routes, node_id, 1)

    def _count_routes(self, routes: tuple[str, ...], node_id: str, sign: int) -> None:
        for route in routes:
            nodes = self.routes.setdefault(route, {})
            if sign > 0:
                nodes[node_id] = None
            else:
                nodes.pop(node_id, None)
            if not nodes:
                del self.routes[route]

    def _observe_seat(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            assert old is not None
            self.seats.pop(old.id, None)
            return
        seat = self.seats.get(new.id)
        if seat is None:
            self._next_seat += 1
        index = seat.index if seat is not None else self._next_seat
        self.seats[new.id] = Seat(index, new, self.usage_of(new.id))

    def _observe_service(self, old: Service | None, new: Service | None) -> None:
        for service, sign in ((old, -1), (new, 1)):
            if service is None:
                continue
            for vip in service.endpoint.vips:
                self._count_addresses(vip.network_id, (vip.address,), sign)
            for config in service.endpoint.ports:
                self._count_port((config.protocol, config.published_port), service.id, sign)
        self._observe_static(old, new)
        if new is not None and new.spec.mode in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB):
            self.global_services[new.id] = None
        elif old is not None:
            self.global_services.pop(old.id, None)
        self._observe_wishes(old, new)
        observe_awaited(self.awaited, old, new)
        if new is None and old is not None and not self.service_nodes.get(old.id):
            self.service_nodes.pop(old.id, None)

    def _observe_static(self, old: Service | None, new: Service | None) -> None:
        before = old.spec.task.networks if old is not None else ()
        after = new.spec.task.networks if new is not None else ()
        if before is after or before == after:
            return
        for attachment in after:
            for number in numbers(attachment):
                self.book(attachment.target).keep(number)
        for attachment in before:
            for number in numbers(attachment):
                self.book(attachment.target).give_up(number)

    def _observe_wishes(self, old: Service | None, new: Service | None) -> None:
        if old is not None:
            self.priorities.pop(old.id, None)
            self.rebalancing.pop(old.id, None)
            for name in avoided_services(old):
                avoiders = self.avoiders.get(name, {})
                avoiders.pop(old.id, None)
                if not avoiders:
                    self.avoiders.pop(name, None)
        if new is None:
            return
        if new.spec.priority:
            self.priorities[new.id] = new.spec.priority
        if new.spec.rebalance or is_rebalancing(new):
            self.rebalancing[new.id] = None
        for name in avoided_services(new):
            self.avoiders.setdefault(name, {})[new.id] = None

    def _count_port(self, port: Port, service_id: str, sign: int) -> None:
        holders = self.ports.setdefault(port, {})
        if sign > 0:
            holders[service_id] = None
        else:
            holders.pop(service_id, None)
        if not holders:
            del self.ports[port]

    def _observe_network(self, old: Network | None, new: Network | None) -> None:
        if old is not None and old.vni and (new is None or new.vni != old.vni):
            self.vnis.pop(old.vni, None)
        if new is None:
            assert old is not None
            book = self.books.pop(old.id, None)
            if old.id == self.ingress_id:  # nodes hold addresses of it until they get others
                self.ingress_id = ""
                self.book("").adopt(book)
            return
        if new.spec.ingress and not self.ingress_id:
            self.ingress_id = new.id
            self.book(new.id).adopt(self.books.pop("", None))
        if new.vni:
            self.vnis[new.vni] = new.id
        if old is None or (old.subnets, old.gateways, old.spec) != (new.subnets, new.gateways, new.spec):
            self.book(new.id).set_subnets(new)


def is_drained(node: Node) -> bool:
    return node.spec.availability is Availability.DRAIN


def _counts_the_same(old: Task, new: Task) -> bool:
    return (
        old.networks is new.networks
        and old.node_id == new.node_id
        and _standing(old) == _standing(new)
        and (old.ports is new.ports or old.ports == new.ports)
        and (old.spec is new.spec or old.spec == new.spec)
        and old.generic_resources == new.generic_resources
    )


def _standing(task: Task) -> int:
    state = task.status.state
    if state > _RUNNING:
        return 0
    if state < _ASSIGNED:
        return 1
    return 3 if task.desired_state <= _RUNNING else 2
