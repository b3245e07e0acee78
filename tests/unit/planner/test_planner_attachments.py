"""Plain containers' places on networks: tasks without a service, bound to their node."""

from __future__ import annotations

from planner_invariants import check_invariants
from planner_world import World

from pyswarm_common.model import (
    NetworkAttachmentSpec,
    NodeState,
    PlainAttachment,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.store.changes import Create


def place(world: World, container: str, *addresses: str, node: str = "n1", network: str = "net") -> str:
    spec = TaskSpec(
        networks=(NetworkAttachmentSpec(target=network, addresses=addresses),),
        attachment=PlainAttachment(container_id=container, container_name=container),
    )
    status = TaskStatus(timestamp=world.now, state=TaskState.NEW)
    task = Task(id=f"p-{container}", node_id=node, spec=spec, desired_state=TaskState.RUNNING, status=status)
    world.apply(Create(task))
    return task.id


def world_with(*nodes: str, subnet: str = "10.5.0.0/24") -> World:
    world = World()
    for name in nodes:
        world.node(name)
    world.network("net", attachable=True, subnets=(subnet,))
    return world


def test_a_place_gets_addresses_at_once_and_stays_on_its_node() -> None:
    world = world_with("n1", "n2")
    task_id = place(world, "one", node="n2")
    world.plan_all()
    task = world.tables.tasks[task_id]
    assert (task.status.state, task.node_id) == (TaskState.ASSIGNED, "n2")
    assert [one.addresses for one in task.networks] == [("10.5.0.2/24",)]
    assert world.plan_again().changes == ()
    check_invariants(world)


def test_a_plan_that_is_not_committed_leaves_nothing_counted() -> None:
    world = world_with("n1")
    world.plan_all()
    place(world, "one")
    before = Ledger.of(world.tables)
    world.plan(commit=False)
    assert world.ledger.reserved("n1") == before.reserved("n1")
    assert world.ledger.usage_of("n1").active == before.usage_of("n1").active == 0
    assert not any(world.ledger.nodes_of("").values())
    world.dirty.slots["", "n1"] = None
    world.plan_all()
    assert world.ledger.usage_of("n1").active == 1
    check_invariants(world)


def test_places_beside_services_share_no_address() -> None:
    world = world_with("n1", "n2")
    world.service("web", 4, networks=("net",))
    for number in range(4):
        place(world, f"c{number}", node=f"n{number % 2 + 1}")
    world.settle()
    check_invariants(world)
    assert all(world.tables.tasks[f"p-c{number}"].status.state is TaskState.RUNNING for number in range(4))


def test_an_address_of_ones_own_and_what_is_said_where_it_is_taken() -> None:
    world = world_with("n1")
    first = place(world, "one", "10.5.0.77")
    world.plan_all()
    assert world.tables.tasks[first].networks[0].addresses == ("10.5.0.77/24",)
    second = place(world, "two", "10.5.0.77")
    world.plan_all()
    waiting = world.tables.tasks[second]
    assert waiting.status.state is TaskState.NEW
    assert "10.5.0.77" in waiting.status.message
    world.report(world.tables.tasks[first], TaskState.SHUTDOWN)
    world.plan_all()
    assert first not in world.tables.tasks
    assert world.tables.tasks[second].networks[0].addresses == ("10.5.0.77/24",)


def test_what_waits_for_an_address_gets_one_when_one_is_freed() -> None:
    world = world_with("n1", subnet="10.5.0.0/30")  # the gateway's and one more
    first, second = place(world, "one"), place(world, "two")
    world.plan_all()
    assert world.tables.tasks[second].status.state is TaskState.NEW
    world.report(world.tables.tasks[first], TaskState.SHUTDOWN)
    world.plan_all()
    assert world.tables.tasks[second].status.state is TaskState.ASSIGNED


def test_a_place_on_a_lost_node_is_kept_until_the_node_is_given_up() -> None:
    world = world_with("n1")
    task_id = place(world, "one")
    world.settle()
    world.node_state("n1", NodeState.DOWN)
    grace_s = world.tables.clusters["cluster"].spec.orphan_grace_s
    world.settle(grace_s / 2)
    assert world.tables.tasks[task_id].status.state is TaskState.RUNNING
    world.settle(grace_s)
    assert task_id not in world.tables.tasks
    assert world.plan_again().changes == ()


def test_a_removed_node_takes_its_places_with_it() -> None:
    world = world_with("n1", "n2")
    task_id = place(world, "one")
    world.settle()
    world.remove(world.tables.nodes["n1"])
    world.settle()
    assert task_id not in world.tables.tasks
    check_invariants(world)


def test_a_drained_node_keeps_its_plain_containers() -> None:
    world = world_with("n1")
    task_id = place(world, "one")
    world.settle()
    world.drain("n1")
    world.settle()
    assert world.tables.tasks[task_id].desired_state is TaskState.RUNNING


def test_who_waits_for_addresses_of_a_network_that_is_removed_is_forgotten() -> None:
    """Its node was never told of it, so nobody else could end it."""
    world = world_with("n1", subnet="10.5.0.0/30")
    one = place(world, "one")
    world.plan_all()
    two = place(world, "two")
    world.plan_all()
    assert world.tables.tasks[two].status.state is TaskState.NEW, "there is no room"
    world.report(world.tables.tasks[one], TaskState.SHUTDOWN)
    world.remove(world.tables.networks["net"])
    world.plan_all()
    assert not world.tables.tasks
    check_invariants(world)


def test_a_place_that_comes_just_after_its_network_went_is_forgotten() -> None:
    world = world_with("n1")
    place(world, "late", network="gone")
    world.plan_all()
    assert not world.tables.tasks
    check_invariants(world)
