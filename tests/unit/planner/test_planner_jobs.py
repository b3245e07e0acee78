"""Replicated and global jobs: completions, concurrency, failures, further runs, and what is kept of them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_world import complete, end_all, force, going, job, new_leader, restart, status
from planner_world import GIB, World

from pyswarm_common.model import (
    JobSpec,
    NodeState,
    ResourceRequirements,
    Resources,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
)
from pyswarm_common.model.sizes import job_size
from pyswarm_manager.planner.orchestrate import jobs


def world_of(nodes: int = 2) -> World:
    world = World()
    for number in range(nodes):
        world.node(f"n{number + 1}")
    return world


def is_quiet(world: World) -> bool:
    return world.plan_again().changes == ()


def test_a_job_completes_as_often_as_asked_and_no_more_at_a_time() -> None:
    world = world_of()
    job(world, total=5, concurrent=2)
    assert complete(world, "job") == 2
    found = status(world)
    assert (found.iteration, found.succeeded, found.failed) == (1, 5, 0)
    assert found.completed_at
    assert found.has_succeeded
    assert {task.slot for task in world.tables.tasks.values()} == {1, 2, 3, 4, 5}
    assert all(task.job_iteration == 1 for task in world.tables.tasks.values())
    assert is_quiet(world)


@pytest.mark.parametrize(
    ("job_spec", "size"),
    [
        (None, (1, 1)),
        (JobSpec(), (1, 1)),
        (JobSpec(total_completions=4), (4, 4)),
        (JobSpec(max_concurrent=3), (3, 3)),
        (JobSpec(max_concurrent=2, total_completions=5), (5, 2)),
        (JobSpec(total_completions=0), (0, 0)),
    ],
)
def test_what_is_not_said_of_a_jobs_size_follows_from_the_rest(job_spec: JobSpec | None, size: tuple[int, int]) -> None:
    found = job_size(ServiceSpec(job=job_spec))
    assert (found.total, found.concurrent) == size


def test_a_failed_task_is_tried_again_in_its_slot_until_it_may_not_and_the_others_go_on() -> None:
    world = world_of()
    job(world, total=3, concurrent=1, policy=restart(max_attempts=2))
    for _ in range(3):  # the first try, and two more
        world.settle(10.0)
        assert [task.slot for task in going(world, "job")] == [1]
        end_all(world, "job", TaskState.FAILED)
    complete(world, "job")
    found = status(world)
    assert (found.succeeded, found.failed) == (2, 1)
    assert found.completed_at
    assert not found.has_succeeded
    assert is_quiet(world)


def test_a_delay_between_attempts_is_kept_by_a_wake_and_not_by_polling() -> None:
    world = world_of()
    job(world, policy=restart(delay_s=10.0))
    world.settle()
    end_all(world, "job", TaskState.FAILED)
    world.settle(9.0)
    assert not going(world, "job")
    world.settle(2.0)
    assert len(going(world, "job")) == 1


def test_completed_tasks_reserve_nothing() -> None:
    world = World()
    world.node("n1", memory=GIB)
    reserved = ResourceRequirements(reservations=Resources(memory_bytes=GIB))
    world.service("job", mode=ServiceMode.REPLICATED_JOB, job=JobSpec(), task=TaskSpec(resources=reserved))
    complete(world, "job")
    assert world.ledger.usage_of("n1").memory_bytes == 0
    world.service("web", 1, task=TaskSpec(resources=reserved))
    world.settle()
    assert len(world.running("web")) == 1


def test_a_task_on_a_lost_node_is_made_anew_and_its_slot_counts_once() -> None:
    world = world_of()
    job(world, total=1)
    world.settle()
    first = going(world, "job")[0]
    world.node_state(first.node_id, NodeState.DOWN)
    world.settle()
    second = going(world, "job")[0]
    assert second.node_id != first.node_id
    world.report(first, TaskState.COMPLETE)  # it was only cut off
    world.settle()
    assert status(world).succeeded == 1
    assert not going(world, "job")
    assert is_quiet(world)


def test_a_task_on_a_drained_node_ends_before_its_successor_starts() -> None:
    world = world_of()
    job(world, total=1)
    world.settle()
    first = going(world, "job")[0]
    world.drain(first.node_id)
    world.plan_all()
    successor = next(task for task in world.tasks("job") if task.id != first.id)
    assert successor.desired_state is TaskState.READY
    world.settle()
    assert [task.id for task in going(world, "job")] == [successor.id]


def test_with_a_deadline_a_task_on_a_drained_node_may_end_by_itself() -> None:
    world = world_of()
    job(world, total=1)
    world.settle()
    first = going(world, "job")[0]
    world.respec_node(first.node_id, drain_deadline_s=60.0)
    world.drain(first.node_id)
    world.settle()
    assert [task.id for task in going(world, "job")] == [first.id]


def test_force_runs_it_again_and_ends_what_was_left() -> None:
    world = world_of()
    job(world, total=2, concurrent=1)
    world.settle()
    left = going(world, "job")[0]
    force(world, "job")
    world.settle()
    assert status(world).iteration == 2
    assert world.tables.tasks[left.id].status.state is TaskState.SHUTDOWN
    assert [task.job_iteration for task in going(world, "job")] == [2]
    complete(world, "job")
    assert status(world).succeeded == 2
    assert is_quiet(world)


def test_another_image_does_not_run_a_job_again() -> None:
    world = world_of()
    job(world)
    complete(world, "job")
    world.image("job", "img:2")
    world.settle()
    assert status(world).iteration == 1
    assert not going(world, "job")


def test_more_completions_wanted_later_are_added() -> None:
    world = world_of()
    job(world, total=2)
    complete(world, "job")
    world.respec("job", job=JobSpec(max_concurrent=2, total_completions=4))
    world.plan_all()
    assert not status(world).completed_at
    complete(world, "job")
    assert status(world).succeeded == 4


def test_a_stopped_job_runs_nothing_and_goes_on_when_it_is_started() -> None:
    world = world_of()
    job(world, total=3, concurrent=1)
    world.settle()
    end_all(world, "job")
    world.settle()
    world.respec("job", stopped=True)
    world.settle()
    assert not going(world, "job")
    assert is_quiet(world)
    world.respec("job", stopped=False)
    complete(world, "job")
    assert status(world).succeeded == 3


@pytest.mark.parametrize("mode", [ServiceMode.REPLICATED_JOB, ServiceMode.GLOBAL_JOB])
def test_a_job_that_is_started_again_at_once_waits_for_what_is_still_stopping(mode: ServiceMode) -> None:
    world = world_of(nodes=1)
    job(world, mode=mode)
    world.settle()
    (first,) = going(world, "job")
    world.respec("job", stopped=True)
    world.plan()
    world.respec("job", stopped=False)
    world.plan()
    (second,) = (task for task in world.tables.tasks.values() if task.id != first.id)
    assert second.desired_state is TaskState.READY, "the first one may still run"
    assert is_quiet(world)
    complete(world, "job")
    assert status(world).succeeded == 1


def test_a_large_job_keeps_the_latest_of_its_tasks() -> None:
    world = world_of()
    total = 3 * jobs.KEPT_TASKS
    job(world, total=total, concurrent=50)
    complete(world, "job")
    found = status(world)
    assert (found.succeeded, found.settled) == (total, total)
    assert len(world.tables.tasks) == jobs.KEPT_TASKS
    assert max(task.slot for task in world.tables.tasks.values()) == total
    assert is_quiet(world)


def test_what_is_kept_of_many_runs_is_bounded() -> None:
    world = world_of()
    job(world, total=4)
    for _ in range(12):
        complete(world, "job")
        force(world, "job")
    complete(world, "job")
    iterations = {task.job_iteration for task in world.tables.tasks.values()}
    assert iterations == {9, 10, 11, 12, 13}
    assert is_quiet(world)


def test_a_global_job_runs_once_on_each_node_and_on_those_that_come_later() -> None:
    world = world_of(3)
    world.drain("n3")
    job(world, mode=ServiceMode.GLOBAL_JOB)
    complete(world, "job")
    assert {task.node_id for task in world.tables.tasks.values()} == {"n1", "n2"}
    assert status(world).completed_at
    world.node("n4")
    world.settle()
    assert {task.node_id for task in going(world, "job")} == {"n4"}
    assert not status(world).completed_at
    complete(world, "job")
    assert status(world).succeeded == 3
    assert is_quiet(world)


def test_a_change_of_one_node_costs_no_look_at_a_whole_global_job_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(3)
    job(world, mode=ServiceMode.GLOBAL_JOB)
    complete(world, "job")
    looked: list[object] = []
    monkeypatch.setattr(jobs, "orchestrate", lambda *arguments: looked.append(arguments))
    world.respec_node("n1", labels={"a": "b"})
    world.plan_all()
    assert not looked


def counted(tasks: list[Task], iteration: int) -> tuple[int, int]:
    """(slots with a live wanted task, slots that completed) of a run."""
    own = [task for task in tasks if task.job_iteration == iteration]
    live = {task.slot for task in own if task.desired_state <= TaskState.RUNNING >= task.status.state}
    done = {task.slot for task in own if task.status.state is TaskState.COMPLETE}
    return len(live - done), len(done)


@settings(max_examples=60, deadline=None)
@given(total=st.integers(0, 8), concurrent=st.integers(1, 4), seed=st.integers(0, 10_000))
def test_whatever_fails_and_whoever_leads_completions_and_concurrency_hold(
    total: int, concurrent: int, seed: int
) -> None:
    rng = Random(seed)
    world = world_of(3)
    job(world, total=total, concurrent=concurrent, policy=restart())
    for _ in range(40):
        step = rng.random()
        running = [task for task in world.tables.tasks.values() if task.status.state is TaskState.RUNNING]
        if step < 0.35 and running:
            state = TaskState.COMPLETE if rng.random() < 0.6 else TaskState.FAILED
            world.report(rng.choice(running), state)
        elif step < 0.5:
            node = rng.choice(list(world.tables.nodes.values()))
            down = node.status.state is NodeState.DOWN
            world.node_state(node.id, NodeState.READY if down else NodeState.DOWN)
        elif step < 0.7:
            new_leader(world, rng)
        else:
            world.now += rng.random() * 5
            world.agents_step()
        world.plan_all()
        assert is_quiet(world)
        live, done = counted(list(world.tables.tasks.values()), 1)
        assert live <= concurrent
        assert done <= total
    for node in world.tables.nodes.values():
        if node.status.state is NodeState.DOWN:
            world.node_state(node.id, NodeState.READY)
    complete(world, "job", rounds=200)
    found = status(world)
    assert (found.succeeded, found.failed) == (total, 0)
    assert found.completed_at
    assert is_quiet(world)
