"""An update goes on by its own rules whatever the clocks of its leaders say."""

from __future__ import annotations

import pytest
from planner_world import World

from pyswarm_common.model import FailureAction, TaskState, UpdateConfig, UpdateState


def updating_world(clock_set_by: float, **config: object) -> World:
    """An update of four slots, which another leader goes on with, whose clock differs."""
    world = World()
    world.node("n1")
    update = UpdateConfig(parallelism=1, monitor_s=5.0, **config)  # type: ignore[arg-type]
    world.service("web", 4, update=update)
    world.settle()
    world.now += 10_000.0
    world.image("web", "img:2")
    world.plan()
    world.now += clock_set_by
    return world


def not_yet_running(world: World) -> int:
    return sum(task.status.state < TaskState.RUNNING for task in world.tasks("web"))


@pytest.mark.parametrize("clock_set_by", [-3600.0, 0.0, 3600.0])
def test_no_more_slots_are_open_than_the_update_allows(clock_set_by: float) -> None:
    world = updating_world(clock_set_by)
    most = 0
    for _ in range(60):
        world.plan_all()
        most = max(most, not_yet_running(world))
        world.agents_step()
    assert most == 1
    assert {task.spec.container.image for task in world.running("web")} == {"img:2"}


@pytest.mark.parametrize("clock_set_by", [-3600.0, 3600.0])
def test_failures_count_although_the_clock_was_set(clock_set_by: float) -> None:
    world = updating_world(clock_set_by, failure_action=FailureAction.PAUSE, max_failure_ratio=0.0)
    for _ in range(60):
        world.plan_all()
        for task in world.tasks("web"):
            if task.spec.container.image == "img:2" and task.status.state is TaskState.PREPARING:
                world.report(task, TaskState.FAILED)
        world.agents_step()
    status = world.tables.services["web"].update_status
    assert status is not None
    assert status.state is UpdateState.PAUSED
