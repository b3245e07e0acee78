"""Random life of a cluster, as far as addresses are concerned, and what must be true of them whenever it is quiet."""

from __future__ import annotations

import ipaddress
from collections import Counter
from random import Random
from typing import TypeVar

from msgspec.structs import replace
from planner_world import World

from pyswarm_common.model import (
    Availability,
    EndpointSpec,
    Network,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeState,
    PlainAttachment,
    PortConfig,
    ServiceMode,
    Task,
    TaskSpec,
    TaskState,
    UpdateConfig,
    UpdateOrder,
)
from pyswarm_manager.planner.allocate.addresses import AddressBook, address_number
from pyswarm_manager.planner.dirty import everything
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.store.apply import Refusal
from pyswarm_manager.store.changes import Create, Delete, SetNodeStatus, Update
from pyswarm_manager.store.static_addresses import numbers
from pyswarm_manager.store.tables import Kind

Held = Counter[tuple[str, int]]

T = TypeVar("T")


class IpamModel:
    """A world, and operations on it drawn from a seed."""

    def __init__(self, seed: int, nodes: int = 4) -> None:
        self.rng = Random(seed)
        self.world = World(seed)
        self.counts = Counter[str]()
        self._number = 0
        self.world.network("ingress", ingress=True, ipv6=bool(seed % 2))
        for index in range(nodes):
            self.world.node(f"n{index}")
        self.operations = [
            *[self.create_service] * 6,
            *[self.remove_service] * 4,
            *[self.update_service] * 8,
            *[self.create_network] * 2,
            *[self.remove_network] * 2,
            *[self.drain] * 2,
            *[self.crash_node] * 2,
            *[self.fail_task] * 6,
            *[self.attach_container] * 2,
            *[self.detach_container] * 2,
            *[self.change_leader] * 1,
            *[self.replace_node] * 1,
        ]

    def step(self) -> None:
        """One operation, and sometimes a plan or a little of what the agents do."""
        operation = self.rng.choice(self.operations)
        operation()
        self.counts[operation.__name__] += 1
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            self.world.plan()
            self.world.agents_step()

    def quiet(self) -> None:
        """Everybody is there again, and everything that can go on has gone on."""
        for node in tuple(self.world.tables.nodes.values()):
            self._state(node.id, NodeState.READY)
        self.world.settle(20.0)

    # ---- operations

    def create_network(self) -> None:
        if len(self.world.tables.networks) > 8:
            return
        self._number += 1
        number = self._number % 200
        subnets, ranges = self.rng.choice(
            [
                ((), ()),
                ((f"10.{number}.0.0/28", f"10.{number}.1.0/28"), (f"10.{number}.0.8/29",)),
                ((f"10.{number}.0.0/24", f"fd00:{number}::/64"), ()),
                ((f"fd00:{number}::/112",), ()),
            ]
        )
        named = {"router": f"10.{number}.0.9"} if subnets and "." in subnets[0] else {}
        spec = NetworkSpec(
            name=f"net{self._number}",
            driver="overlay",
            subnets=subnets,
            ip_ranges=ranges,
            auxiliary_addresses=named,
            ipv6=self.rng.random() < 0.3,
        )
        self.world.try_apply(Create(Network(id=spec.name, spec=spec)))  # refused where the subnet is another's

    def remove_network(self) -> None:
        network = self._one([item for item in self.world.tables.networks.values() if not item.spec.ingress])
        if network is not None:
            self.world.try_apply(Delete(Kind.NETWORK, network.id, network.meta.version))

    def create_service(self) -> None:
        if len(self.world.tables.services) > 12:
            return
        self._number += 1
        mode = ServiceMode.GLOBAL if self.rng.random() < 0.15 else ServiceMode.REPLICATED
        ports = (PortConfig(target_port=80),) if self.rng.random() < 0.2 else ()
        order = self.rng.choice((UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST))
        attachments = self._attachments(may_be_static=mode is ServiceMode.REPLICATED)
        self.world.service(
            f"s{self._number}",
            None if mode is ServiceMode.GLOBAL else self.rng.randint(0, 6),
            mode=mode,
            task=TaskSpec(networks=attachments),
            endpoint=EndpointSpec(ports=ports),
            update=UpdateConfig(parallelism=self.rng.randint(0, 2), order=order),
        )

    def update_service(self) -> None:
        service = self._one(list(self.world.tables.services.values()))
        if service is None:
            return
        task, replicas = service.spec.task, service.spec.replicas
        choice = self.rng.randint(0, 3)
        if choice == 0:
            task = replace(task, networks=self._attachments(may_be_static=service.spec.mode is ServiceMode.REPLICATED))
        elif choice == 1:
            task = replace(task, force_update=task.force_update + 1)
        elif replicas is not None:
            replicas = self.rng.randint(0, 6)
        spec = replace(service.spec, task=task, replicas=replicas)
        self.world.try_apply(Update(replace(service, spec=spec)))  # refused where static addresses are another's

    def remove_service(self) -> None:
        service = self._one(list(self.world.tables.services.values()))
        if service is not None:
            self.world.remove(service)

    def drain(self) -> None:
        node = self._one(list(self.world.tables.nodes.values()))
        assert node is not None
        drained = node.spec.availability is Availability.DRAIN
        self.world.drain(node.id, Availability.ACTIVE if drained else Availability.DRAIN)

    def crash_node(self) -> None:
        node = self._one(list(self.world.tables.nodes.values()))
        assert node is not None
        self._state(node.id, self.rng.choice((NodeState.DOWN, NodeState.READY)))

    def replace_node(self) -> None:
        """One is gone for good, and another joins."""
        node = self._one(list(self.world.tables.nodes.values()))
        assert node is not None
        self.world.remove(node)
        self._number += 1
        self.world.node(f"node{self._number}")

    def fail_task(self) -> None:
        tasks = [task for task in self.world.tables.tasks.values() if task.status.state is TaskState.RUNNING]
        task = self._one(tasks)
        if task is not None:
            self.world.report(task, TaskState.FAILED)

    def attach_container(self) -> None:
        node = self._one(list(self.world.tables.nodes.values()))
        network = self._one([item for item in self.world.tables.networks.values() if not item.spec.ingress])
        if node is None or network is None or len(self.world.tables.slots.get("", {})) > 20:
            return
        self._number += 1
        spec = TaskSpec(
            networks=(NetworkAttachmentSpec(target=network.id),), attachment=PlainAttachment(f"c{self._number}")
        )
        task = Task(id=f"plain{self._number}", node_id=node.id, spec=spec, desired_state=TaskState.RUNNING)
        self.world.try_apply(Create(task))

    def detach_container(self) -> None:
        task = self._one([task for task in self.world.tables.tasks.values() if not task.service_id])
        if task is not None:
            self.world.report(task, TaskState.COMPLETE)

    def change_leader(self) -> None:
        """The next one knows what the tables say, and nothing else."""
        self.world.ledger = Ledger.of(self.world.tables)
        self.world.dirty = everything()
        self.world.wakes = {}

    # ---- parts of them

    def _state(self, node_id: str, state: NodeState) -> None:
        status = self.world.tables.nodes[node_id].status
        if status.state is not state:
            self.world.apply(SetNodeStatus(node_id, replace(status, state=state, changed_at=self.world.now)))

    def _attachments(self, *, may_be_static: bool) -> tuple[NetworkAttachmentSpec, ...]:
        networks = [item for item in self.world.tables.networks.values() if item.subnets and not item.spec.ingress]
        chosen = self.rng.sample(networks, min(len(networks), self.rng.randint(0, 2)))
        attachments = []
        for network in chosen:
            attachment = NetworkAttachmentSpec(target=network.id)
            if may_be_static and self.rng.random() < 0.4:
                attachment = self._static(attachment, network.subnets[0])
            attachments.append(attachment)
        return tuple(attachments)

    def _static(self, attachment: NetworkAttachmentSpec, subnet: str) -> NetworkAttachmentSpec:
        """Five addresses that no service and no task has: what the API checks."""
        whole = ipaddress.ip_network(subnet)
        taken = set(held(self.world)) | kept(self.world)
        book = self.world.ledger.book(attachment.target)
        part = book.ranges[0]
        free = [
            number
            for number in range(part.first, min(part.last, part.first + 200))
            if (attachment.target, number) not in taken and number not in part.blocked
        ]
        texts = [str(type(whole.network_address)(number)) for number in free[-5:]]
        if len(texts) < 3:
            return attachment
        return replace(attachment, virtual_addresses=(texts[0],), addresses=tuple(texts[1:]))

    def _one(self, items: list[T]) -> T | None:
        return self.rng.choice(items) if items else None


def held(world: World) -> Held:
    """Who holds what, by network and number, from the objects alone."""
    found: Held = Counter()
    tables = world.tables
    for task in tables.tasks.values():
        if not task.status.state.is_terminal:
            for item in task.networks:
                found.update((item.network_id, address_number(text)) for text in item.addresses)
    for service in tables.services.values():
        found.update((vip.network_id, address_number(vip.address)) for vip in service.endpoint.vips)
    for node in tables.nodes.values():
        found.update((world.ledger.ingress_id, address_number(text)) for text in node.ingress_addresses)
    return found


def kept(world: World) -> set[tuple[str, int]]:
    """What services have for good."""
    return {
        (attachment.target, number)
        for service in world.tables.services.values()
        for attachment in service.spec.task.networks
        for number in numbers(attachment)
    }


def check_addresses(world: World) -> None:
    """Addresses allocated are addresses in use, each has one holder, and none is another's by right."""
    holders = held(world)
    assert [item for item, count in holders.items() if count > 1] == []
    assert {item for item, count in allocated(world.ledger.books).items() if count} == set(holders)
    for network_id, number in holders:
        network = world.tables.networks[network_id]
        named = {
            *map(address_number, network.gateways),
            *map(address_number, network.spec.auxiliary_addresses.values()),
        }
        assert number not in named
        assert world.ledger.book(network_id).range_of(number) is not None
    for task in world.tables.tasks.values():
        check_task(world, task)
        assert "which its predecessor still has" not in task.status.message  # it makes way, or has ended


def check_task(world: World, task: Task) -> None:
    """One address of each family of each network; none that another service keeps."""
    service = world.tables.services.get(task.service_id)
    for item in task.networks:
        network = world.tables.networks.get(item.network_id)
        if task.status.state.is_terminal or network is None or not item.addresses:
            continue
        families = [":" in text for text in item.addresses]
        assert sorted(set(families)) == sorted({":" in subnet for subnet in network.subnets}) == sorted(families)
        foreign = {
            number
            for other in world.tables.services.values()
            if other.id != (service.id if service is not None else "")
            for attachment in other.spec.task.networks
            if attachment.target == network.id
            for number in numbers(attachment)
        }
        assert not foreign & set(map(address_number, item.addresses))


def allocated(books: dict[str, AddressBook]) -> Held:
    return Counter(
        {
            (name, number): count
            for name, book in books.items()
            for part in book.ranges
            for number, count in part.used.items()
        }
    )


def check_new_leader(world: World) -> None:
    """A planner that knows nothing but the tables has the same free addresses, and nothing to do."""
    fresh = Ledger.of(world.tables)
    for name, book in world.ledger.books.items():
        if book.ranges:
            other = fresh.books[name]
            assert [(part.used, part.blocked, part.free) for part in book.ranges] == [
                (part.used, part.blocked, part.free) for part in other.ranges
            ]
    assert {name for name, book in fresh.books.items() if book.ranges} == {
        name for name, book in world.ledger.books.items() if book.ranges
    }
    assert fresh.vnis == world.ledger.vnis
    assert world.plan_again().changes == ()


def remove_everything(model: IpamModel) -> None:
    """All services and containers go, and then all networks."""
    world = model.world
    for service in tuple(world.tables.services.values()):
        world.remove(service)
    for task in tuple(world.tables.tasks.values()):
        if not task.service_id:
            world.report(task, TaskState.COMPLETE)
    model.quiet()
    for network in tuple(world.tables.networks.values()):
        result = world.try_apply(Delete(Kind.NETWORK, network.id, network.meta.version))
        assert not isinstance(result, Refusal), result
    model.quiet()
