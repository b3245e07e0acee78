"""Cron services: every tick decided once, whoever leads and whatever the clocks say; overlap, deadlines, history."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_world import cron, end_all, going, job, new_leader, restart, runs, status
from msgspec.structs import replace
from planner_world import World

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import CronRun, CronRunState, OverlapPolicy, ServiceMode, TaskState
from pyswarm_manager.planner.orchestrate import cron as cron_rules
from pyswarm_manager.store.changes import Update

RUNNING, COMPLETE, SKIPPED = CronRunState.RUNNING, CronRunState.COMPLETE, CronRunState.SKIPPED


def world_of(nodes: int = 2) -> World:
    world = World()
    for number in range(nodes):
        world.node(f"n{number + 1}")
    return world


def states(world: World) -> list[CronRunState]:
    return [run.state for run in runs(world)]


def is_quiet(world: World) -> bool:
    return world.plan_again().changes == ()


def test_a_tick_makes_a_run_and_nothing_happens_in_between() -> None:
    world = world_of()
    cron(world, "@every 60s")
    world.settle(59.0)
    assert not world.tables.tasks
    assert min(world.wakes.values()) == 1060.0
    world.settle(1.0)
    assert [(run.tick_at, run.iteration, run.state) for run in runs(world)] == [(1060.0, 1, RUNNING)]
    assert len(going(world, "cron")) == 1
    end_all(world, "cron")
    world.settle()
    assert states(world) == [COMPLETE]
    assert status(world, "cron").has_succeeded
    world.settle(60.0)
    assert [(run.tick_at, run.iteration) for run in runs(world)] == [(1060.0, 1), (1120.0, 2)]
    assert is_quiet(world)


def test_a_run_that_still_goes_forbids_the_next() -> None:
    world = world_of()
    cron(world, "@every 60s")
    world.settle(60.0)
    world.settle(60.0)
    assert states(world) == [RUNNING, SKIPPED]
    assert "run 1 was still going" in runs(world)[1].message
    assert len(going(world, "cron")) == 1
    end_all(world, "cron")
    world.settle(60.0)
    assert states(world) == [COMPLETE, SKIPPED, RUNNING]


def test_runs_may_go_side_by_side_where_that_is_allowed() -> None:
    world = world_of()
    cron(world, "@every 60s", overlap=OverlapPolicy.ALLOW)
    world.settle(180.0)
    assert states(world) == [RUNNING, RUNNING, RUNNING]
    assert sorted(task.job_iteration for task in going(world, "cron")) == [1, 2, 3]
    second = next(task for task in going(world, "cron") if task.job_iteration == 2)
    world.report(second, TaskState.COMPLETE)
    world.settle()
    assert states(world) == [RUNNING, COMPLETE, RUNNING]
    assert is_quiet(world)


def test_a_run_that_replaces_starts_when_the_one_before_has_ended() -> None:
    world = world_of()
    cron(world, "@every 60s", overlap=OverlapPolicy.REPLACE)
    world.settle(60.0)
    first = going(world, "cron")[0]
    world.now += 60.0
    world.plan_all()
    assert states(world) == [CronRunState.REPLACED, RUNNING]
    assert world.tables.tasks[first.id].desired_state is TaskState.SHUTDOWN
    assert not [task for task in world.tables.tasks.values() if task.job_iteration == 2]
    world.settle()
    assert [task.job_iteration for task in going(world, "cron")] == [2]
    assert is_quiet(world)


def test_a_tick_missed_within_the_deadline_is_made_up_for_and_a_later_one_skipped() -> None:
    world = world_of()
    cron(world, "@every 100s", overlap=OverlapPolicy.ALLOW, starting_deadline_s=150.0)
    world.settle()
    world.now += 520.0  # nobody led
    world.settle()
    assert [(run.tick_at, run.state) for run in runs(world)] == [
        (1100.0, SKIPPED),
        (1400.0, RUNNING),
        (1500.0, RUNNING),
    ]
    assert runs(world)[0].message == "it and others after it were missed by more than 150 s"
    world.settle(80.0)
    assert runs(world)[-1].tick_at == 1600.0


def test_a_schedule_that_changes_makes_up_for_nothing() -> None:
    world = world_of()
    service = cron(world, "0 0 * * *")
    world.settle(3600.0 * 10)
    world.respec("cron", cron=replace(service.spec.cron, schedule="*/5 * * * *"))  # type: ignore[type-var]
    world.settle()
    assert not runs(world)
    world.settle(300.0)
    assert len(runs(world)) == 1


def test_a_stopped_service_runs_nothing_and_makes_up_for_nothing_when_it_is_started() -> None:
    world = world_of()
    cron(world, "@every 60s")
    world.settle(60.0)
    end_all(world, "cron")
    world.respec("cron", stopped=True)
    world.settle(600.0)
    assert states(world) == [COMPLETE]
    assert is_quiet(world)
    world.respec("cron", stopped=False)
    world.settle(59.0)
    assert states(world) == [COMPLETE]
    world.settle(1.0)
    assert states(world) == [COMPLETE, RUNNING]


def test_a_time_of_day_follows_the_zones_clock() -> None:
    world = world_of()
    world.now = datetime(2026, 10, 24, 23, 0, tzinfo=UTC).timestamp()
    cron(world, "30 2 * * *", time_zone="Europe/Berlin", overlap=OverlapPolicy.ALLOW)
    world.settle(3 * 24 * 3600.0)
    ticks = [datetime.fromtimestamp(run.tick_at, UTC).isoformat() for run in runs(world)]
    assert ticks == ["2026-10-25T00:30:00+00:00", "2026-10-26T01:30:00+00:00", "2026-10-27T01:30:00+00:00"]


def test_the_history_is_bounded_and_never_loses_a_run_that_goes() -> None:
    world = world_of()
    cron(world, "@every 60s", history_limit=3)
    world.settle(60.0)
    world.settle(60.0 * 20)
    assert states(world) == [RUNNING, SKIPPED, SKIPPED, SKIPPED]
    for _ in range(10):
        end_all(world, "cron")
        world.settle(60.0)
    assert [state for state in states(world) if state is COMPLETE] == [COMPLETE] * 3
    kept = {run.iteration for run in runs(world)}
    assert {task.job_iteration for task in world.tables.tasks.values()} <= kept
    assert is_quiet(world)


def test_a_run_whose_task_may_not_try_again_has_failed() -> None:
    world = world_of()
    cron(world, "@every 600s", policy=restart(max_attempts=1))
    world.settle(600.0)
    for _ in range(2):
        end_all(world, "cron", TaskState.FAILED)
        world.settle(10.0)
    assert states(world) == [CronRunState.FAILED]
    assert runs(world)[0].message == "1 task failed as often as the restart policy allows"
    world.settle(600.0)
    assert states(world) == [CronRunState.FAILED, RUNNING]


def test_somebody_may_run_it_besides_the_schedule() -> None:
    world = world_of()
    cron(world, "@every 600s")
    world.settle()
    world.apply(Update(cron_rules.run_now(world.tables.services["cron"], world.now)))
    world.settle()
    assert [(run.tick_at, run.iteration, run.state) for run in runs(world)] == [(0.0, 1, RUNNING)]
    assert len(going(world, "cron")) == 1
    with pytest.raises(FailedPrecondition, match="run 1 of service cron is still going"):
        cron_rules.run_now(world.tables.services["cron"], world.now)


def test_a_last_tick_of_a_clock_that_was_far_ahead_does_not_hold_the_schedule_up() -> None:
    world = world_of()
    cron(world, "@every 60s")
    world.settle()
    world.now += 30 * 24 * 3600.0
    world.settle()
    end_all(world, "cron")
    world.settle()
    world.now -= 30 * 24 * 3600.0
    new_leader(world, Random(0))
    world.settle()
    before = len(runs(world))
    world.settle(60.0)
    assert len(runs(world)) == before + 1


def test_runs_side_by_side_are_bounded() -> None:
    world = world_of()
    cron(world, "@every 1s", overlap=OverlapPolicy.ALLOW)
    world.settle(cron_rules.MAX_RUNS + 5.0)
    assert len([state for state in states(world) if state is RUNNING]) == cron_rules.MAX_RUNS
    assert runs(world)[-1].state is SKIPPED


class Recorder:
    """Every run that was ever committed, by its tick."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ticks: dict[float, CronRun] = {}
        self.iterations: dict[int, float] = {}

    def look(self) -> None:
        for run in runs(self.world):
            known = self.ticks.setdefault(run.tick_at, run)
            assert known.iteration == run.iteration, "a tick was decided twice"
            if run.iteration:
                assert self.iterations.setdefault(run.iteration, run.tick_at) == run.tick_at


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), overlap=st.sampled_from(OverlapPolicy), total=st.integers(1, 2))
def test_whoever_leads_by_whatever_clock_every_tick_is_decided_once(
    seed: int, overlap: OverlapPolicy, total: int
) -> None:
    """No tick twice, none missing: also with leaders that die in the middle of a commit, and clocks that differ."""
    rng = Random(seed)
    world = world_of(3)
    period_s = 60.0
    cron(world, "@every 60s", overlap=overlap, starting_deadline_s=1e6, history_limit=200)
    if total > 1:
        spec = world.tables.services["cron"].spec
        world.respec("cron", job=replace(job(world, "other", total=total).spec.job), cron=spec.cron)
    world.plan_all()
    anchor = world.tables.services["cron"].cron_status.last_tick_at  # type: ignore[union-attr]
    seen, latest = Recorder(world), 0.0
    for _ in range(60):
        step = rng.random()
        if step < 0.3:
            new_leader(world, rng)
            world.now += rng.uniform(-120.0, 120.0)  # its clock is another one
        elif step < 0.5:
            for task in going(world, "cron"):
                if rng.random() < 0.5:
                    world.report(task, TaskState.COMPLETE)
        elif step < 0.7:
            world.agents_step()
        else:
            world.now += rng.uniform(0.0, 100.0)
        seen.look()
        world.plan_all()
        seen.look()
        assert is_quiet(world)
        last = world.tables.services["cron"].cron_status.last_tick_at  # type: ignore[union-attr]
        assert last >= latest
        latest = last
    ticks = sorted(seen.ticks)
    assert ticks == [anchor + period_s * (number + 1) for number in range(len(ticks))]
    for run in runs(world):
        own = [task for task in world.tables.tasks.values() if task.job_iteration == run.iteration and run.iteration]
        assert len({task.slot for task in own}) <= total
    assert world.tables.services["cron"].spec.mode is ServiceMode.CRON
