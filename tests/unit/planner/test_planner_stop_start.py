"""Services that are stopped and started, and tasks that users restart or remove."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from planner_invariants import check_ledger
from planner_world import World

from pyswarm_common.model import (
    ClusterSpec,
    FailureAction,
    Placement,
    RestartPolicy,
    ServiceMode,
    Task,
    TaskSpec,
    TaskState,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from pyswarm_manager.planner.dirty import everything
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.store.changes import Delete, SetDesired, Update
from pyswarm_manager.store.tables import Kind

ORDERS = pytest.mark.parametrize("order", list(UpdateOrder), ids=lambda order: order.name.lower())


@pytest.fixture
def world() -> World:
    world = World()
    for name in ("n1", "n2", "n3"):
        world.node(name)
    return world


def check_rest(world: World) -> None:
    world.plan_all()
    check_ledger(world)
    again = world.plan_again()
    assert again.changes == (), again.changes


def ask(world: World, *tasks: Task) -> None:
    present = (world.tables.tasks[task.id] for task in tasks)
    world.apply(*(Update(replace(task, restart_requested=1)) for task in present))


def settle_in_steps(world: World, steps: int = 60) -> int:
    """Goes on step by step; returns the most tasks that were ever missing at one time."""
    most = 0
    wanted = len(world.running("web"))
    for _ in range(steps):
        world.plan_all()
        check_ledger(world)
        world.agents_step()
        most = max(most, wanted - len({task.slot or task.node_id for task in world.running("web")}))
    return most


# ---- stop and start


@pytest.mark.parametrize("mode", [ServiceMode.REPLICATED, ServiceMode.GLOBAL])
def test_a_stopped_service_keeps_its_number_and_comes_back_with_it(world: World, mode: ServiceMode) -> None:
    world.service("web", 3 if mode is ServiceMode.REPLICATED else None, mode=mode)
    world.settle()
    world.respec("web", stopped=True)
    world.settle()
    assert list(world.tables.service_tasks("web")) == []
    check_rest(world)
    world.node("n4")
    world.drain("n1")
    world.settle()
    assert world.tasks("web") == []
    world.respec("web", stopped=False)
    world.settle()
    assert len(world.running("web")) == 3
    check_rest(world)


def test_a_stop_in_the_middle_of_an_update_and_of_a_restart_ends_both(world: World) -> None:
    world.service("web", 3, update=UpdateConfig(parallelism=1, monitor_s=0.0))
    world.settle()
    world.image("web", "img:2")
    world.plan_all()
    ask(world, *world.tasks("web")[:2])
    world.plan_all()
    world.respec("web", stopped=True)
    world.settle()
    assert list(world.tables.service_tasks("web")) == []
    check_rest(world)
    world.respec("web", stopped=False)
    world.settle()
    assert {task.spec.container.image for task in world.running("web")} == {"img:2"}


def test_a_stop_and_a_start_with_a_leader_that_dies_after_any_part_of_either(world: World) -> None:
    world.service("web", 3)
    world.settle()
    for stopped in (True, False):
        world.respec("web", stopped=stopped)
        for part in range(4):
            changes = world.plan(commit=False).changes
            if changes:
                world.apply(*changes[: part + 1])
            world.dirty, world.wakes, world.ledger = everything(), {}, Ledger.of(world.tables)
            world.agents_step()
        world.settle()
        assert len(world.running("web")) == (0 if stopped else 3)


# ---- restart


@ORDERS
@pytest.mark.parametrize("mode", [ServiceMode.REPLICATED, ServiceMode.GLOBAL])
def test_a_restarted_task_has_a_successor_and_no_update_is_told_of(
    world: World, mode: ServiceMode, order: UpdateOrder
) -> None:
    update = UpdateConfig(parallelism=1, order=order)
    world.service("web", 3 if mode is ServiceMode.REPLICATED else None, mode=mode, update=update)
    world.settle()
    first, *others = world.running("web")
    ask(world, first)
    world.settle()
    now = {task.id for task in world.running("web")}
    assert len(now) == 3
    assert now > {task.id for task in others}
    assert first.id not in now
    assert world.tables.services["web"].update_status is None
    check_rest(world)


@ORDERS
@pytest.mark.parametrize(("parallelism", "missing"), [(1, 1), (2, 2), (0, 4)])
def test_several_are_restarted_at_the_pace_of_updates(
    world: World, order: UpdateOrder, parallelism: int, missing: int
) -> None:
    world.service("web", 4, update=UpdateConfig(parallelism=parallelism, order=order))
    world.settle()
    before = world.running("web")
    ask(world, *before)
    most = settle_in_steps(world)
    assert most == (0 if order is UpdateOrder.START_FIRST else missing)
    assert {task.id for task in world.running("web")}.isdisjoint(task.id for task in before)
    check_rest(world)


def test_the_delay_between_updates_is_kept(world: World) -> None:
    world.service("web", 2, update=UpdateConfig(parallelism=1, delay_s=60.0))
    world.settle(100)
    first, second = world.running("web")
    ask(world, first, second)
    world.settle(50)
    assert second.id in {task.id for task in world.running("web")}
    world.settle(20)
    assert second.id not in {task.id for task in world.running("web")}
    assert len(world.running("web")) == 2


def test_a_restart_prepares_the_successor_first_and_one_that_cannot_be_had_stops_nothing(world: World) -> None:
    world.service("web", 2, update=UpdateConfig(failure_action=FailureAction.ROLLBACK))
    world.settle()
    world.image("web", "img:2")
    world.settle(100)
    ask(world, *world.running("web"))
    rejected = 0
    for _ in range(40):
        world.plan_all()
        for task in world.tasks("web"):
            if task.status.state is TaskState.ASSIGNED:
                rejected += 1
                world.report(task, TaskState.REJECTED, "No such image")
        world.now += 1
    assert len(world.running("web")) == 2
    assert 2 <= rejected <= 8  # both at once, each after 5, 10, 20 s
    status = world.tables.services["web"].update_status
    assert status is not None
    assert status.state is UpdateState.COMPLETED
    assert world.tables.services["web"].spec.task.container.image == "img:2"
    world.settle(100)
    assert len(world.running("web")) == 2
    assert not any(task.restart_requested for task in world.running("web"))


def test_earlier_failures_neither_delay_nor_forbid_a_restart(world: World) -> None:
    world.service("web", 1, task=TaskSpec(restart=RestartPolicy(max_attempts=2, delay_s=1.0)))
    world.settle()
    for _ in range(2):
        (task,) = world.running("web")
        world.report(task, TaskState.FAILED)
        world.settle(10)
    (task,) = world.running("web")
    ask(world, task)
    world.settle()
    (successor,) = world.running("web")
    assert successor.id != task.id
    assert successor.restart_times == ()


def test_a_slot_for_which_there_is_no_room_keeps_no_other_from_being_restarted(world: World) -> None:
    world.service("web", 4, task=TaskSpec(placement=Placement(max_replicas_per_node=1)))
    world.settle()
    assert len(world.running("web")) == 3
    first = world.running("web")[0]
    ask(world, first)
    world.settle()
    assert first.id not in {task.id for task in world.running("web")}
    assert len(world.running("web")) == 3


def test_restarts_during_an_update_are_part_of_it_and_a_paused_update_stays_paused(world: World) -> None:
    world.service("web", 3, update=UpdateConfig(parallelism=1, failure_action=FailureAction.PAUSE))
    world.settle()
    world.image("web", "bad")
    for _ in range(20):
        world.plan_all()
        for task in world.tasks("web"):
            if task.spec.container.image == "bad" and task.status.state is TaskState.STARTING:
                world.report(task, TaskState.FAILED)
        world.agents_step()
    status = world.tables.services["web"].update_status
    assert status is not None
    assert status.state is UpdateState.PAUSED
    old = next(task for task in world.running("web") if task.spec.container.image == "img:1")
    ask(world, old)
    world.settle(100)
    assert old.id not in {task.id for task in world.running("web")}
    again = world.tables.services["web"].update_status
    assert again is not None
    assert again.state is UpdateState.PAUSED


def test_without_a_history_restarts_go_on_too(world: World) -> None:
    cluster = world.tables.clusters["cluster"]
    world.apply(Update(replace(cluster, spec=ClusterSpec(task_history_limit=0))))
    world.service("web", 4, update=UpdateConfig(parallelism=1))
    world.settle()
    before = world.running("web")
    ask(world, *before)
    assert settle_in_steps(world) == 1
    assert {task.id for task in world.tables.service_tasks("web")}.isdisjoint(task.id for task in before)
    check_rest(world)


# ---- remove


@ORDERS
def test_a_removed_task_is_forgotten_and_replaced(world: World, order: UpdateOrder) -> None:
    world.service("web", 3, update=UpdateConfig(order=order))
    world.settle()
    gone = world.running("web")[1]
    world.apply(SetDesired(gone.id, TaskState.REMOVE))
    world.settle()
    assert gone.id not in world.tables.tasks
    assert sorted(task.slot for task in world.running("web")) == [1, 2, 3]
    check_rest(world)


def test_a_removed_task_of_a_global_service_is_replaced_on_its_node(world: World) -> None:
    world.service("web", mode=ServiceMode.GLOBAL)
    world.settle()
    gone = world.running("web")[0]
    world.apply(SetDesired(gone.id, TaskState.REMOVE))
    world.settle()
    assert gone.id not in world.tables.tasks
    assert sorted(task.node_id for task in world.running("web")) == ["n1", "n2", "n3"]


def test_history_is_removed_without_consequence(world: World) -> None:
    world.service("web", 1)
    world.settle()
    (task,) = world.running("web")
    world.report(task, TaskState.FAILED)
    world.settle(10)
    running = world.running("web")
    world.apply(Delete(Kind.TASK, task.id))
    world.settle()
    assert world.running("web") == running
    check_rest(world)
