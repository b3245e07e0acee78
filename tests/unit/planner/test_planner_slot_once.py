"""With order stop-first a slot's next task starts when the one before has ended, whatever drove that out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from planner_world import GIB, World

from pyswarm_common.model import (
    NodeState,
    ResourceRequirements,
    Resources,
    Taint,
    TaintEffect,
    Task,
    TaskSpec,
    TaskState,
    UpdateConfig,
    UpdateOrder,
)

FENCED = Taint(key="fenced", effect=TaintEffect.NO_EXECUTE)


@dataclass(frozen=True)
class Slot:
    """A world in which the only task of `db` was just told to leave n1."""

    world: World
    old: Task

    @property
    def successor(self) -> Task:
        [task] = self.world.tasks("db")
        return task


def driven_out(order: UpdateOrder = UpdateOrder.STOP_FIRST) -> Slot:
    world = World()
    world.node("n1")
    world.service("db", 1, update=UpdateConfig(parallelism=1, order=order))
    world.settle()
    [old] = world.running("db")
    world.node("n2")
    world.respec_node("n1", taints=(FENCED,))
    world.plan_all()
    return Slot(world, old)


def test_a_task_that_a_taint_drives_out_ends_before_its_successor_starts() -> None:
    slot = driven_out()
    assert slot.world.tables.tasks[slot.old.id].desired_state is TaskState.SHUTDOWN, "it waits for nobody"
    assert slot.successor.desired_state is TaskState.READY
    slot.world.report(slot.old, TaskState.SHUTDOWN)
    slot.world.plan_all()
    assert slot.successor.desired_state is TaskState.RUNNING


def test_nobody_waits_for_a_task_whose_node_goes_down_meanwhile() -> None:
    slot = driven_out()
    slot.world.node_state("n1", NodeState.DOWN)
    slot.world.plan_all()
    assert slot.successor.desired_state is TaskState.RUNNING


def test_with_start_first_the_successor_of_a_task_that_is_driven_out_starts_at_once() -> None:
    slot = driven_out(UpdateOrder.START_FIRST)
    wanted = [task for task in slot.world.tasks("db") if task.id != slot.old.id]
    assert [task.desired_state for task in wanted] == [TaskState.RUNNING]


@pytest.mark.parametrize(
    ("order", "desired"), [(UpdateOrder.STOP_FIRST, TaskState.READY), (UpdateOrder.START_FIRST, TaskState.RUNNING)]
)
def test_a_preempted_task_ends_before_its_successor_starts(order: UpdateOrder, desired: TaskState) -> None:
    world = World()
    world.node("n1", memory=4 * GIB)
    size = TaskSpec(resources=ResourceRequirements(reservations=Resources(memory_bytes=4 * GIB)))
    world.service("low", 1, task=size, update=UpdateConfig(order=order))
    world.settle()
    [victim] = world.running("low")
    world.service("high", 1, task=size, priority=1)
    world.plan_all()
    [successor] = world.tasks("low")
    assert (successor.replaces, successor.desired_state) == (victim.id, desired)
    world.report(world.tables.tasks[victim.id], TaskState.SHUTDOWN)
    world.plan_all()
    [successor] = world.tasks("low")
    assert successor.desired_state is TaskState.RUNNING


def test_a_task_that_waits_for_its_restart_keeps_no_room_from_its_successor() -> None:
    """With order start-first an update waits for room; what never served does not hold it."""
    world = World()
    world.node("n1", memory=4 * GIB)
    size = TaskSpec(resources=ResourceRequirements(reservations=Resources(memory_bytes=4 * GIB)))
    world.service("db", 1, task=size, update=UpdateConfig(order=UpdateOrder.START_FIRST))
    world.settle()
    [old] = world.running("db")
    world.report(old, TaskState.FAILED)
    world.plan_all()
    [waiting] = world.tasks("db")
    assert waiting.desired_state is TaskState.READY
    world.image("db", "app:2")
    world.settle(30)
    [new] = world.running("db")
    assert new.spec.container.image == "app:2"
