"""What must hold between any two commits, whatever happened."""

from __future__ import annotations

from collections import Counter

from planner_world import World

from pyswarm_common.model import PublishMode, Service, Task, TaskState, UpdateState
from pyswarm_manager.planner.allocate.addresses import address_number
from pyswarm_manager.planner.ledger import Ledger


def uses_node(task: Task) -> bool:
    return TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING


def check_invariants(world: World) -> None:
    check_addresses(world)
    check_networks_and_ports(world)
    check_reservations(world)
    check_ledger(world)


def check_addresses(world: World) -> None:
    """No address has two holders, and none is a gateway's."""
    tables = world.tables
    held: Counter[tuple[str, int]] = Counter()
    for task in tables.tasks.values():
        if not task.status.state.is_terminal:
            for attachment in task.networks:
                held.update((attachment.network_id, address_number(address)) for address in attachment.addresses)
    for service in tables.services.values():
        held.update((vip.network_id, address_number(vip.address)) for vip in service.endpoint.vips)
    for node in tables.nodes.values():
        held.update((world.ledger.ingress_id, address_number(address)) for address in node.ingress_addresses)
    for network in tables.networks.values():
        held.update((network.id, address_number(gateway)) for gateway in network.gateways)
    assert not [holder for holder, count in held.items() if count > 1]


def check_networks_and_ports(world: World) -> None:
    networks = world.tables.networks.values()
    vnis = [network.vni for network in networks if network.vni]
    assert len(vnis) == len(set(vnis))
    subnets = [subnet for network in networks for subnet in network.subnets]
    assert len(subnets) == len(set(subnets))
    ports = [
        (port.protocol, port.published_port)
        for service in world.tables.services.values()
        for port in service.endpoint.ports
        if port.publish_mode is PublishMode.INGRESS
    ]
    assert len(ports) == len(set(ports))


def check_reservations(world: World) -> None:
    for node in world.tables.nodes.values():
        tasks = [task for task in world.tables.tasks_on(node.id) if uses_node(task) and not is_swapped(world, task)]
        memory = sum(task.spec.resources.reservations.memory_bytes for task in tasks)
        assert memory <= node.description.resources.memory_bytes
        gpus = [gpu.value for task in tasks for gpu in task.generic_resources]
        assert len(gpus) == len(set(gpus))
        ports = [
            (port.protocol, port.published_port)
            for task in tasks
            for port in task.ports
            if port.publish_mode is PublishMode.HOST
        ]
        assert len(ports) == len(set(ports))


def is_swapped(world: World, task: Task) -> bool:
    """Whether the task is only prepared, and starts when one of its slot has ended that still uses the same node."""
    slot = world.tables.slots[task.service_id][task.slot or task.node_id]
    beside = [other for other in slot if other.id != task.id and other.node_id == task.node_id and uses_node(other)]
    return task.desired_state is TaskState.READY and bool(beside)


def check_ledger(world: World) -> None:
    """The ledger kept up by events is the ledger made from the tables."""
    assert contents(world.ledger) == contents(Ledger.of(world.tables))


def contents(ledger: Ledger) -> dict[str, object]:
    return {
        "usage": {
            node: (usage.active, usage.nano_cpus, usage.memory_bytes, usage.ports)
            for node, usage in ledger.usage.items()
            if usage.active or usage.nano_cpus or usage.memory_bytes or usage.ports
        },
        "service_nodes": {service: nodes for service, nodes in ledger.service_nodes.items() if nodes},
        "books": {
            network: sorted(item for part in book.ranges for item in part.used.items())
            for network, book in ledger.books.items()
            if book.ranges
        },
        "vnis": ledger.vnis,
        "ports": ledger.ports,
        "global": set(ledger.global_services),
        "ingress": ledger.ingress_id,
    }


def check_converged(world: World) -> None:
    """With every node ready and nothing failing any more, what is wanted runs."""
    tables = world.tables
    for service in tables.services.values():
        running = world.running(service.id)
        wanted = len(tables.nodes) if service.spec.mode else service.spec.replicas or 0
        if service.spec.stopped:
            wanted = 0
        if service.awaits_dependencies and not service.spec.stopped:
            assert not running
            assert any(is_missing(world, item.service) for item in service.spec.depends_on)
            continue
        room = len(tables.nodes) if has_host_ports(service) else wanted
        assert min(wanted, room) <= len(running) <= wanted, [(t.id, t.status) for t in world.tasks(service.id)]
        assert len({task.slot or task.node_id for task in running}) == len(running)
        if wanted <= room and not is_held(service):
            image = service.spec.task.container.image
            assert all(task.spec.container.image == image for task in running), service.update_status
    for task in tables.tasks.values():
        assert task.service_id in tables.services
        is_waiting = tables.services[task.service_id].awaits_dependencies
        assert task.status.state >= TaskState.RUNNING or not task.node_id or is_waiting, task
        assert not task.restart_requested or task.desired_state > TaskState.RUNNING or task.status.state.is_terminal


def is_missing(world: World, name: str) -> bool:
    """Whether a service is not there with all that is wanted of it."""
    service = world.tables.services.get(name)
    if service is None or service.spec.stopped or service.awaits_dependencies:
        return True
    wanted = len(world.tables.nodes) if service.spec.mode else service.spec.replicas or 0
    return len(world.running(name)) < wanted


def has_host_ports(service: Service) -> bool:
    return any(port.publish_mode is PublishMode.HOST for port in service.endpoint.ports)


def is_held(service: Service) -> bool:
    status = service.update_status
    return status is not None and status.state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)
