"""Drains: what runs while tasks move, and how many move at a time; and when a node that is down counts as lost."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_world import World

from pyswarm_common.model import Availability, NodeState, Task, TaskState, UpdateConfig, UpdateOrder
from pyswarm_manager.store.changes import Update


def drained_world(replicas: int, parallelism: int, order: UpdateOrder, nodes: int) -> World:
    """A service that runs on the nodes n1 …, of which all but the last are then drained at once."""
    world = World()
    for number in range(nodes):
        world.node(f"n{number + 1}")
    world.service("web", replicas, update=UpdateConfig(parallelism=parallelism, order=order))
    world.settle()
    for number in range(nodes - 1):
        world.drain(f"n{number + 1}")
    return world


def moving(world: World) -> int:
    """Slots between a task on a drained node and a successor that runs."""
    count = 0
    for tasks in world.tables.slots["web"].values():
        wanted = [task for task in tasks if task.desired_state <= TaskState.RUNNING and not is_on_drained(world, task)]
        count += bool(wanted) and all(task.status.state is not TaskState.RUNNING for task in wanted)
    return count


def is_on_drained(world: World, task: Task) -> bool:
    return world.tables.nodes[task.node_id].spec.availability is Availability.DRAIN if task.node_id else False


@settings(max_examples=40, deadline=None)
@given(
    replicas=st.integers(1, 6),
    parallelism=st.integers(0, 3),
    order=st.sampled_from(UpdateOrder),
    nodes=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
def test_a_drain_keeps_to_the_limits_of_updates(
    replicas: int, parallelism: int, order: UpdateOrder, nodes: int, seed: int
) -> None:
    world = drained_world(replicas, parallelism, order, nodes)
    names, chance = [f"n{number + 1}" for number in range(nodes)], Random(seed)
    for _ in range(400):
        world.plan_all()
        assert not world.plan_again().changes
        assert moving(world) <= (parallelism or replicas)
        least = 1 if order is UpdateOrder.START_FIRST or replicas > 1 else 0
        assert len(world.running("web")) + serving_last(world) >= least
        world.agents_step(only=[chance.choice(names)])
        if is_done(world):
            break
    assert is_done(world)
    assert len(world.running("web")) == replicas


def serving_last(world: World) -> int:
    """What was told to stop, and still serves."""
    tasks = world.tasks("web", wanted=False)
    return sum(t.desired_state > TaskState.RUNNING and t.status.state is TaskState.RUNNING for t in tasks)


def is_done(world: World) -> bool:
    return all(
        task.status.state.is_terminal or not is_on_drained(world, task) for task in world.tasks("web", wanted=False)
    ) and not moving(world)


@pytest.mark.parametrize("order", UpdateOrder)
def test_after_the_deadline_nothing_is_waited_for(order: UpdateOrder) -> None:
    world = World()
    world.node("n1")
    world.service("web", 3, update=UpdateConfig(parallelism=1, order=order))
    world.settle()
    world.respec_node("n1", availability=Availability.DRAIN, drain_deadline_s=60.0)
    world.settle(59.0)
    assert len(world.running("web")) == 3
    world.settle(2.0)
    assert all(task.status.state.is_terminal for task in world.tables.tasks_on("n1"))


def test_a_node_that_is_drained_no_more_keeps_what_had_not_moved() -> None:
    world = World()
    world.node("n1")
    world.service("web", 2)
    world.settle()
    world.respec_node("n1", availability=Availability.DRAIN, drain_deadline_s=60.0)
    world.settle(30.0)
    before = {task.id for task in world.running("web")}
    world.drain("n1", Availability.ACTIVE)
    world.settle(60.0)
    assert {task.id for task in world.running("web")} == before
    assert world.tables.nodes["n1"].drain_started_at == 0.0


@pytest.mark.parametrize(("orphan_after_s", "waited_s"), [(0.0, 24 * 3600.0), (90.0, 90.0)])
def test_tasks_of_a_lost_node_are_given_up_when_the_cluster_says(orphan_after_s: float, waited_s: float) -> None:
    world = World()
    cluster = world.tables.clusters["cluster"]
    spec = msgspec.structs.replace(cluster.spec, orphan_after_s=orphan_after_s)
    world.apply(Update(msgspec.structs.replace(cluster, spec=spec)))
    for name in ("n1", "n2"):
        world.node(name)
    world.service("web", 2)
    world.settle()
    lost = [task.id for task in world.tables.tasks_on("n1")]
    world.node_state("n1", NodeState.DOWN)
    world.settle(waited_s - 1)
    assert [world.tables.tasks[task_id].status.state for task_id in lost] == [TaskState.RUNNING]
    world.settle(2.0)
    assert [world.tables.tasks[task_id].status.state for task_id in lost] == [TaskState.ORPHANED]
