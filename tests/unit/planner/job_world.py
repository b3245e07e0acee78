"""What tests of jobs do again and again: services of the job modes, and tasks that end."""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec.structs import replace
from planner_world import World

from pyswarm_common.model import (
    CronRun,
    CronSpec,
    JobSpec,
    JobStatus,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    Task,
    TaskSpec,
    TaskState,
)
from pyswarm_manager.planner.dirty import everything
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.orchestrate.jobs import begin_if_forced
from pyswarm_manager.store.apply import Applied
from pyswarm_manager.store.changes import Update


def restart(max_attempts: int = 0, delay_s: float = 0.0) -> RestartPolicy:
    return RestartPolicy(condition=RestartCondition.ON_FAILURE, delay_s=delay_s, max_attempts=max_attempts)


def job(
    world: World,
    name: str = "job",
    total: int | None = None,
    concurrent: int | None = None,
    mode: ServiceMode = ServiceMode.REPLICATED_JOB,
    policy: RestartPolicy | None = None,
    **spec: Any,
) -> Service:
    return world.service(
        name,
        mode=mode,
        job=JobSpec(max_concurrent=concurrent, total_completions=total),
        task=TaskSpec(restart=policy or restart()),
        **spec,
    )


def cron(world: World, schedule: str, name: str = "cron", policy: RestartPolicy | None = None, **spec: Any) -> Service:
    task = TaskSpec(restart=policy or restart())
    return world.service(name, mode=ServiceMode.CRON, cron=CronSpec(schedule=schedule, **spec), task=task)


def status(world: World, name: str = "job") -> JobStatus:
    found = world.tables.services[name].job_status
    assert found is not None
    return found


def runs(world: World, name: str = "cron") -> tuple[CronRun, ...]:
    found = world.tables.services[name].cron_status
    return found.runs if found is not None else ()


def going(world: World, name: str) -> list[Task]:
    """Tasks that run and are wanted."""
    return world.running(name)


def end_all(world: World, name: str, state: TaskState = TaskState.COMPLETE) -> int:
    """Every running task of the service ends; returns how many did."""
    tasks = going(world, name)
    for task in tasks:
        world.report(task, state)
    return len(tasks)


def complete(world: World, name: str, rounds: int = 100) -> int:
    """Let tasks start and complete until nothing more does; returns the most that ran at a time."""
    most = 0
    for _ in range(rounds):
        world.settle(150.0)
        ended = end_all(world, name)
        most = max(most, ended)
        if not ended:
            return most
    raise AssertionError("the job does not end")


def force(world: World, name: str) -> None:
    """As the API does it: one change with the next run."""
    service = world.tables.services[name]
    task = replace(service.spec.task, force_update=service.spec.task.force_update + 1)
    changed = replace(service, spec=replace(service.spec, task=task))
    world.apply(Update(begin_if_forced(service, changed, world.now)))


def new_leader(world: World, rng: Random) -> None:
    """The leader dies in the middle of committing its plan: a prefix of it is committed, and the next one knows
    nothing but the tables."""
    found = world.plan(commit=False)
    for change in found.changes[: rng.randint(0, len(found.changes))]:
        if not isinstance(world.try_apply(change), Applied):
            break
    world.ledger = Ledger.of(world.tables)
    world.wakes.clear()
    world.dirty = everything()
