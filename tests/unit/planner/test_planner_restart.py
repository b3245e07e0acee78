"""The restart policy: conditions, attempts, windows, and the delay that doubles."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace
from planner_world import World

from pyswarm_common.model import (
    FailureAction,
    Placement,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
    UpdateConfig,
    UpdateState,
)
from pyswarm_manager.planner.orchestrate.restart import DEFAULT_MAX_DELAY_S, STABLE_S, next_restart, run_time

NOW = 10_000.0


def ended(state: TaskState = TaskState.FAILED, *, lived: float = 1.0, times: tuple[float, ...] = ()) -> Task:
    return Task(id="t", status=TaskStatus(state=state), running_at=NOW - lived, ended_at=NOW, restart_times=times)


def no_jitter() -> float:
    return 0.0


@pytest.mark.parametrize(
    ("condition", "state", "restarts"),
    [
        (RestartCondition.ANY, TaskState.COMPLETE, True),
        (RestartCondition.ANY, TaskState.FAILED, True),
        (RestartCondition.ON_FAILURE, TaskState.COMPLETE, False),
        (RestartCondition.ON_FAILURE, TaskState.FAILED, True),
        (RestartCondition.ON_FAILURE, TaskState.REJECTED, True),
        (RestartCondition.NONE, TaskState.FAILED, False),
    ],
)
def test_condition(condition: RestartCondition, state: TaskState, restarts: bool) -> None:
    found = next_restart(RestartPolicy(condition=condition), ended(state), NOW, no_jitter)
    assert (found is not None) is restarts


def test_the_default_delay_is_dockers() -> None:
    assert next_restart(RestartPolicy(), ended(), NOW, no_jitter) == (NOW + 5.0, (NOW + 5.0,), 0.0, 1)


def test_no_delay_is_at_once() -> None:
    assert next_restart(RestartPolicy(delay_s=0.0), ended(), NOW, no_jitter) == (0.0, (NOW,), 0.0, 1)


def test_the_successor_of_a_task_that_never_ran_is_made_only_after_the_delay() -> None:
    rejected = Task(id="t", status=TaskStatus(state=TaskState.REJECTED), ended_at=NOW)
    assert next_restart(RestartPolicy(), rejected, NOW, no_jitter) == (0.0, (NOW,), NOW + 5.0, 1)
    assert next_restart(RestartPolicy(delay_s=0.0), rejected, NOW, no_jitter) == (0.0, (NOW,), NOW, 1)
    again = replace(rejected, restart_times=(NOW - 6,), failures_in_row=1)
    assert next_restart(RestartPolicy(), again, NOW, no_jitter) == (0.0, (NOW + 4, NOW), NOW + 10.0, 2)


@pytest.mark.parametrize("mode", [ServiceMode.REPLICATED, ServiceMode.GLOBAL])
def test_an_image_that_cannot_be_had_is_tried_as_often_as_the_delay_says(mode: ServiceMode) -> None:
    """Agents that reject within a second: for two minutes, with the delays 5, 10, 20, 40, 80."""
    world = World()
    world.node("n1")
    world.service("web", mode=mode)
    made: list[float] = []
    for _ in range(120):
        world.plan_all()
        for task in world.tasks("web"):
            if task.status.state is TaskState.ASSIGNED:
                made.append(world.now)
                world.report(task, TaskState.REJECTED, "No such image")
        world.now += 1
    assert [round(later - earlier) for earlier, later in pairwise(made)] == [5, 10, 20, 40]


def test_an_update_to_an_image_that_cannot_be_had_goes_on_at_the_same_pace() -> None:
    world = World()
    for name in ("n1", "n2"):
        world.node(name)
    update = UpdateConfig(parallelism=1, failure_action=FailureAction.CONTINUE)
    world.service("web", 4, update=update)
    world.settle()
    world.image("web", "nonsense")
    rejected = 0
    for _ in range(60):
        world.plan_all()
        for task in world.tasks("web"):
            if task.status.state is TaskState.ASSIGNED:
                rejected += 1
                world.report(task, TaskState.REJECTED, "No such image")
        assert (
            len({task.slot for task in world.tasks("web", wanted=False) if task.spec.container.image != "img:1"}) == 1
        )
        world.now += 1
    assert rejected == 4
    assert len(world.running("web")) == 4
    status = world.tables.services["web"].update_status
    assert status is not None
    assert status.state is UpdateState.UPDATING


def test_an_update_whose_tasks_fail_to_start_is_not_complete() -> None:
    world = World()
    world.node("n1")
    world.service("web", 1, update=UpdateConfig(parallelism=1, failure_action=FailureAction.CONTINUE))
    world.settle()
    world.image("web", "img:2")
    for _ in range(40):
        world.plan_all()
        world.agents_step()
        for task in world.tasks("web"):
            if task.spec.container.image == "img:2" and task.status.state is TaskState.STARTING:
                world.report(task, TaskState.FAILED, "no such program")
        world.now += 1
    status = world.tables.services["web"].update_status
    assert status is not None
    assert status.state is UpdateState.UPDATING


@pytest.mark.parametrize(
    ("policy", "times", "restarts"),
    [
        (RestartPolicy(max_attempts=2), (1.0,), True),
        (RestartPolicy(max_attempts=2), (1.0, 2.0), False),
        (RestartPolicy(max_attempts=2, window_s=60.0), (1.0, NOW - 61), True),
        (RestartPolicy(max_attempts=2, window_s=60.0), (NOW - 59, NOW - 1), False),
        (RestartPolicy(), tuple(float(n) for n in range(16)), True),
    ],
)
def test_attempts(policy: RestartPolicy, times: tuple[float, ...], restarts: bool) -> None:
    assert (next_restart(policy, ended(times=times), NOW, no_jitter) is not None) is restarts


def delays(policy: RestartPolicy, count: int, lived: float = 1.0) -> list[float]:
    """The delays of so many failures in a row, each so long after its start; until the policy gives up."""
    now, found = NOW, []
    times: tuple[float, ...] = ()
    failures = 0
    for _ in range(count):
        task = failed(now, lived, restart_times=times, failures_in_row=failures)
        restart = next_restart(policy, task, now, no_jitter)
        if restart is None:
            break
        delay = max(0.0, restart.start_at - now)
        found.append(delay)
        times, failures = restart.restart_times, restart.failures_in_row
        now += delay + lived
    return found


def failed(now: float, lived: float, **fields: object) -> Task:
    status = TaskStatus(state=TaskState.FAILED, timestamp=now)
    return Task(id="t", status=status, running_at=now - lived, ran_from=now - lived, ended_at=now, **fields)  # type: ignore[arg-type]


def test_failures_in_a_row_back_off_up_to_a_cap() -> None:
    assert delays(RestartPolicy(), 9) == [5, 10, 20, 40, 80, 160, *[DEFAULT_MAX_DELAY_S] * 3]
    assert delays(RestartPolicy(delay_s=0.0), 5) == [0, 1, 2, 4, 8]
    assert delays(RestartPolicy(delay_s=2.0, max_delay_s=10.0), 5) == [2, 4, 8, 10, 10]


def test_a_policys_own_longer_delay_is_kept() -> None:
    assert delays(RestartPolicy(delay_s=400.0), 5) == [400.0] * 5
    assert delays(RestartPolicy(delay_s=3.0, max_delay_s=3.0), 5) == [3.0] * 5


def test_a_task_that_ran_for_a_while_starts_afresh() -> None:
    assert delays(RestartPolicy(), 6, lived=STABLE_S) == [5.0] * 6


@pytest.mark.parametrize("window_s", [0.5, 4.0, 60.0])
def test_attempts_are_used_up_although_the_window_is_shorter_than_the_delay(window_s: float) -> None:
    """Delays of 5, 10 and 20 s between tasks that fail at once: without them all three are within any window."""
    assert delays(RestartPolicy(max_attempts=3, window_s=window_s), 10, lived=0.1) == [5, 10, 20]


def test_the_window_counts_the_time_in_which_tasks_ran() -> None:
    assert len(delays(RestartPolicy(max_attempts=3, window_s=10.0), 20, lived=4.0)) == 20
    assert len(delays(RestartPolicy(max_attempts=3, window_s=10.0), 20, lived=3.0)) == 3


def test_how_long_a_task_ran_is_told_by_one_clock() -> None:
    """The leader that saw it start was an hour ahead of (or behind) the one that saw it end."""
    for off in (-3600.0, 3600.0):
        task = failed(NOW, 2.0)
        assert run_time(replace(task, running_at=task.running_at + off)) == 2.0
    no_agent = replace(failed(NOW, 2.0), ran_from=0.0)
    assert run_time(no_agent) == 2.0


def test_jitter_only_lengthens_backed_off_delays() -> None:
    late = next_restart(RestartPolicy(), failed(NOW, 1.0, failures_in_row=1), NOW, lambda: 0.999)
    assert late is not None
    assert 10.0 < late.start_at - NOW <= 11.0
    first = next_restart(RestartPolicy(), ended(), NOW, lambda: 0.999)
    assert first is not None
    assert first.start_at - NOW == 5.0


def test_what_is_remembered_is_bounded() -> None:
    found = next_restart(RestartPolicy(), ended(times=tuple(float(n) for n in range(100))), NOW, no_jitter)
    assert found is not None
    assert len(found.restart_times) == 16


def test_what_a_wrong_clock_ended_in_the_future_is_restarted_now() -> None:
    refused = Task(id="t", status=TaskStatus(state=TaskState.REJECTED), ended_at=NOW + 3600.0)
    found = next_restart(RestartPolicy(), refused, NOW, no_jitter)
    assert found is not None
    assert found.make_at <= NOW


def test_a_successor_whose_node_is_drained_is_not_replaced_by_one_beside_the_predecessor() -> None:
    world = World()
    for name in ("n1", "n2", "n3"):
        world.node(name)
    world.service("web", 1)
    world.settle()
    (old,) = world.running("web")
    world.image("web", "img:2")
    world.plan_all()
    successor = next(task for task in world.tasks("web") if task.id != old.id)
    world.report(successor, TaskState.READY)
    world.plan_all()  # the predecessor is told to stop, and takes its time
    assert world.tables.tasks[old.id].desired_state is TaskState.SHUTDOWN
    world.drain(successor.node_id)
    world.plan_all()
    (replacement,) = world.tasks("web")
    world.report(replacement, TaskState.READY)
    world.plan_all()
    assert world.tables.tasks[replacement.id].desired_state is TaskState.READY
    world.report(old, TaskState.SHUTDOWN)
    world.report(successor, TaskState.SHUTDOWN)
    world.plan_all()
    assert world.tables.tasks[replacement.id].desired_state is TaskState.RUNNING


def test_a_restart_stays_on_its_node_though_others_have_less_to_do() -> None:
    world = World()
    for name in ("n1", "n2", "n3"):
        world.node(name)
    world.service("web", 1)
    world.settle()
    (first,) = world.running("web")
    world.service("other", 3)
    world.settle()
    world.report(first, TaskState.FAILED)
    world.settle(10)
    (second,) = world.running("web")
    assert second.node_id == first.node_id
    world.drain(second.node_id)
    world.settle()
    assert world.running("web")[0].node_id != first.node_id


def test_what_never_ran_on_its_node_may_go_elsewhere() -> None:
    world = World()
    world.node("n1")
    world.service("web", 1)
    world.plan_all()
    (first,) = world.tasks("web")
    world.node("n2")
    world.service("other", 1, task=TaskSpec(placement=Placement(constraints=("node.id==n1",))))
    world.plan_all()
    world.report(first, TaskState.REJECTED)
    world.settle(10)
    assert world.running("web")[0].node_id == "n2"
