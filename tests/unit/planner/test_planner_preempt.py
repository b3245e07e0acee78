"""Preemption: the lowest tasks make way, as few as can be, never equal or higher ones, and it comes to an end."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from planner_invariants import check_invariants
from planner_world import GIB, World

from pyswarm_common.model import (
    ContainerSpec,
    EndpointSpec,
    Placement,
    PortConfig,
    PublishMode,
    ResourceRequirements,
    Resources,
    ServiceMode,
    Task,
    TaskSpec,
    TaskState,
    UpdateConfig,
    UpdateOrder,
)


def sized(gib: float, **placement: Any) -> TaskSpec:
    reserved = Resources(memory_bytes=int(gib * GIB))
    return TaskSpec(resources=ResourceRequirements(reservations=reserved), placement=Placement(**placement))


def one_node(memory: int = 4) -> World:
    world = World()
    world.node("n1", memory=memory * GIB)
    return world


def stopped(world: World) -> list[Task]:
    return [task for task in world.tables.tasks.values() if task.desired_state > TaskState.RUNNING]


def test_an_update_that_may_not_crowd_its_node_comes_to_rest() -> None:
    world = one_node(8)
    world.service("low", 4, task=sized(1))
    order = UpdateConfig(order=UpdateOrder.START_FIRST)
    world.service("high", 2, task=sized(2, max_replicas_per_node=2), priority=10, update=order)
    world.settle(100)
    world.retask("high", container=ContainerSpec(image="img:2"))
    world.settle(1000)
    assert {task.spec.container.image for task in world.running("high")} == {"img:2"}
    assert len(world.running("low")) == 4


def test_a_lower_task_makes_way_says_why_and_waits_for_room() -> None:
    world = one_node()
    world.service("low", 1, task=sized(4))
    world.settle()
    world.service("high", 1, task=sized(4), priority=10)
    world.plan_all()
    [waiting] = world.tasks("high")
    assert waiting.status.message == "waiting for tasks of lower priority to stop on node n1"
    [victim] = stopped(world)
    [successor] = world.tasks("low")
    assert successor.replaces == victim.id
    assert successor.cause == "preempted by service high (priority 10)"
    assert successor.status.message.startswith("preempted by service high (priority 10): no suitable node (")
    world.settle(60)
    assert len(world.running("high")) == 1
    world.node("n2")
    world.settle()
    assert [task.node_id for task in world.running("low")] == ["n2"], "it is rescheduled as soon as there is room"


def test_the_lowest_go() -> None:
    world = one_node(8)
    world.service("lowest", 2, task=sized(1), priority=-5)
    world.service("big", 1, task=sized(2), priority=3)
    world.service("middle", 1, task=sized(2))
    world.service("upper", 1, task=sized(2), priority=5)
    world.settle()
    world.service("high", 1, task=sized(2), priority=10)
    world.settle(60)
    assert len(world.running("high")) == 1
    assert {name: len(world.running(name)) for name in ("lowest", "big", "middle", "upper")} == {
        "lowest": 0,
        "big": 1,
        "middle": 1,
        "upper": 1,
    }
    assert len(stopped(world)) == 2


def test_one_large_task_goes_rather_than_two_small_ones_of_equal_priority() -> None:
    world = one_node(5)
    world.service("small", 3, task=sized(1))
    world.service("large", 1, task=sized(2))
    world.settle()
    world.service("high", 1, task=sized(2), priority=1)
    world.settle(60)
    assert (len(world.running("high")), len(world.running("small")), world.running("large")) == (1, 3, [])


def test_equal_and_higher_stay() -> None:
    world = one_node()
    world.service("same", 1, task=sized(4), priority=10)
    world.settle()
    world.service("high", 1, task=sized(4), priority=10)
    world.service("low", 1, task=sized(4), priority=9)
    world.settle(60)
    assert len(world.running("same")) == 1
    assert stopped(world) == []
    assert "insufficient memory on 1 node" in world.tasks("high")[0].status.message


def test_the_higher_is_placed_first_when_both_wait() -> None:
    world = World()
    world.service("low", 4, task=sized(1))
    world.service("high", 4, task=sized(1), priority=1)
    world.plan_all()
    world.node("n1", memory=5 * GIB)
    world.settle()
    assert (len(world.running("high")), len(world.running("low"))) == (4, 1)
    assert stopped(world) == []


def test_room_that_comes_free_piece_by_piece_is_kept() -> None:
    world = one_node()
    world.service("low", 4, task=sized(1))
    world.settle()
    world.service("high", 1, task=sized(4), priority=1)
    world.plan_all()
    victims = stopped(world)
    assert len(victims) == 4
    world.service("sneak", 1, task=sized(1))
    for victim in victims:
        assert world.running("sneak") == [] == [t for t in world.tasks("sneak") if t.node_id]
        world.report(world.tables.tasks[victim.id], TaskState.SHUTDOWN)
        world.plan_all()
    assert [task.node_id for task in world.tasks("high")] == ["n1"]
    assert len(stopped(world)) == 4, "nothing more was stopped than what was needed"


def test_a_host_port_is_taken_over() -> None:
    world = one_node()
    ports = EndpointSpec(ports=(PortConfig(target_port=80, published_port=80, publish_mode=PublishMode.HOST),))
    world.service("low", 1, endpoint=ports)
    world.settle()
    world.service("high", 1, endpoint=ports, priority=1)
    world.settle(60)
    assert len(world.running("high")) == 1
    assert "host-mode port already in use" in world.tasks("low")[0].status.message


def test_a_global_service_gets_its_place_on_every_node() -> None:
    world = one_node()
    world.node("n2", memory=4 * GIB)
    world.service("low", 2, task=sized(4))
    world.settle()
    world.service("agent", mode=ServiceMode.GLOBAL, task=sized(1), priority=100)
    world.settle(60)
    assert len(world.running("agent")) == 2
    assert world.running("low") == []


def test_a_global_service_that_made_way_comes_back() -> None:
    world = one_node()
    world.service("agent", mode=ServiceMode.GLOBAL, task=sized(2))
    world.settle()
    world.service("high", 1, task=sized(4), priority=1)
    world.settle(60)
    assert (len(world.running("high")), world.running("agent")) == (1, [])
    world.respec("high", replicas=0)
    world.settle(60)
    assert len(world.running("agent")) == 1


def test_an_update_that_only_waits_for_its_own_predecessor_preempts_nobody() -> None:
    world = one_node()
    world.service("low", 1, task=sized(1))
    world.service("high", 1, task=sized(3), priority=1)
    world.settle()
    world.image("high", "img:2")
    world.settle(60)
    assert world.running("high")[0].spec.container.image == "img:2"
    assert len(world.running("low")) == 1
    assert not any(task.cause for task in world.tables.tasks.values())


services = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(1, 3), st.sampled_from([0.5, 1.0, 2.0, 3.0])), min_size=2, max_size=6
)


@settings(deadline=None, max_examples=60)
@given(services=services, nodes=st.integers(1, 3), interrupted=st.booleans())
def test_it_comes_to_rest_with_the_highest_running(
    services: list[tuple[int, int, float]], nodes: int, interrupted: bool
) -> None:
    """However they come: it ends, keeps within the nodes, and nobody waits whom a lower one could make room for."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number}", memory=4 * GIB)
    for number, (priority, replicas, gib) in enumerate(services):
        world.service(f"s{number}", replicas, task=sized(gib), priority=priority)
        if interrupted:
            world.plan_all()
        else:
            world.settle()
        check_invariants(world)
        assert world.plan_again().changes == ()
    world.settle(3600)
    check_invariants(world)
    assert world.plan_again().changes == ()
    for number, (priority, _, gib) in enumerate(services):
        if any(task.status.state < TaskState.ASSIGNED for task in world.tasks(f"s{number}")):
            for node in world.tables.nodes:
                assert room_without_lower(world, node, priority) < gib * GIB


def room_without_lower(world: World, node: str, priority: int) -> int:
    used = 0
    for task in world.tables.tasks_on(node):
        is_lower = world.tables.services[task.service_id].spec.priority < priority
        if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING and not is_lower:
            used += task.spec.resources.reservations.memory_bytes
    return 4 * GIB - used
