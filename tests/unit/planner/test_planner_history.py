"""How many ended tasks a slot keeps."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from planner_world import World

from pyswarm_common.model import TaskState, UpdateState
from pyswarm_manager.store.changes import Update


def world_with_history(limit: int, replicas: int) -> World:
    world = World()
    cluster = world.tables.clusters["cluster"]
    world.apply(Update(replace(cluster, spec=replace(cluster.spec, task_history_limit=limit))))
    world.node("n1")
    world.service("web", replicas)
    world.settle()
    return world


def plan_until_updated(world: World) -> None:
    """Plan after plan, each on its own, up to the one that completes the update."""
    for _ in range(200):
        if not world.dirty:
            world.agents_step()
            world.now = max(world.now, min(world.wakes.values(), default=0.0))
        world.plan()
        status = world.tables.services["web"].update_status
        if status is not None and status.state is UpdateState.COMPLETED:
            return
    raise AssertionError("the update does not complete")


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("limit", [0, 1])
def test_the_plan_that_completes_an_update_leaves_nothing_to_prune(limit: int, replicas: int) -> None:
    world = world_with_history(limit, replicas)
    for image in ("img:2", "img:3"):
        world.image("web", image)
        plan_until_updated(world)
        assert world.plan_again().changes == ()
        past = [task for task in world.tasks("web", wanted=False) if task.status.state is TaskState.SHUTDOWN]
        assert len(past) == limit * replicas
