"""What must hold of jobs and schedules after every commit, and once everything is healed.

Every tick is decided once and every run has its own number; no slot is run again in a run in which it completed, no run
has more slots at work than may be, and counts never go back while a run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.model import (
    Availability,
    CronRunState,
    JobStatus,
    OverlapPolicy,
    Service,
    ServiceMode,
    Task,
    TaskState,
)
from pyswarm_common.model.sizes import job_size
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Tables
from pyswarm_simulator.checks.violation import Violation

_RUNNING = TaskState.RUNNING
Slot = tuple[str, int, int]
"""Service, run, slot."""


class JobChecks:
    """What every index did to jobs."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._ticks: dict[tuple[str, float], int] = {}
        self._runs: dict[tuple[str, int], float] = {}
        self._latest: dict[str, int] = {}
        self._done: set[Slot] = set()
        self._working: dict[tuple[str, int], dict[str, int]] = {}
        """By service and run: slots of the wanted tasks that have not ended, by task."""

    def changed(self, index: int, events: tuple[Event, ...]) -> None:
        """What an index did."""
        for event in events:
            match event.object:
                case Task() as task if task.job_iteration:
                    self._task(index, event)
                case Service() as service if service.spec.mode.is_job:
                    self._service(index, event)
        for run, working in self._working.items():
            self._check_concurrency(index, run, working)

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def _task(self, index: int, event: Event) -> None:
        old, new = event
        task = event.object
        assert isinstance(task, Task)
        slot = (task.service_id, task.job_iteration, task.slot)
        if task.slot and slot in self._done and _is_released(old, new):
            raise Violation(f"job {task.name} run {task.job_iteration} is run again although it completed, at {index}")
        working = self._working.setdefault(slot[:2], {})
        working.pop(task.id, None)
        if not isinstance(new, Task):
            return
        if new.status.state is TaskState.COMPLETE:
            self._done.add(slot)
        if new.desired_state <= _RUNNING and new.status.state <= _RUNNING:
            working[task.id] = task.slot

    def _check_concurrency(self, index: int, run: tuple[str, int], working: dict[str, int]) -> None:
        service = self._services.get(run[0])
        if service is None or service.spec.mode is ServiceMode.GLOBAL_JOB:
            return
        size, slots = job_size(service.spec), set(working.values())
        if any(slot > size.total for slot in slots):
            raise Violation(f"run {run[1]} of job {service.spec.name} has a slot beyond its {size.total}, at {index}")
        busy = [slot for slot in slots if (*run, slot) not in self._done]
        if len(busy) > size.concurrent:
            name, most = service.spec.name, size.concurrent
            raise Violation(f"run {run[1]} of job {name}: {len(busy)} tasks at a time where {most} may be, at {index}")

    # -- services ------------------------------------------------------------------------------------------------------

    def _service(self, index: int, event: Event) -> None:
        old, new = event
        if not isinstance(new, Service):
            self._services.pop(event.object.id, None)
            return
        self._services[new.id] = new
        if isinstance(old, Service) and old.job_status is not None and new.job_status is not None:
            self._check_counts(index, new, old.job_status, new.job_status)
        self._check_runs(index, new)

    def _check_counts(self, index: int, service: Service, old: JobStatus, new: JobStatus) -> None:
        name = service.spec.name
        if new.iteration < old.iteration:
            raise Violation(f"job {name} went back from run {old.iteration} to {new.iteration} at {index}")
        if service.spec.mode is not ServiceMode.REPLICATED_JOB:
            return
        if new.iteration == old.iteration and (new.succeeded < old.succeeded or new.settled < old.settled):
            raise Violation(f"job {name} forgot completions: {old} became {new} at {index}")
        if new.succeeded + new.failed > job_size(service.spec).total:
            raise Violation(f"job {name} completed more often than asked for: {new} at {index}")

    def _check_runs(self, index: int, service: Service) -> None:
        status, cron = service.cron_status, service.spec.cron
        if status is None or cron is None:
            return
        for run in status.runs:
            if run.tick_at and self._ticks.setdefault((service.id, run.tick_at), run.iteration) != run.iteration:
                raise Violation(f"a tick of {service.spec.name} was decided twice: {run} at {index}")
            if run.iteration and self._runs.setdefault((service.id, run.iteration), run.tick_at) != run.tick_at:
                raise Violation(f"a run of {service.spec.name} has two ticks: {run} at {index}")
        going = [run.iteration for run in status.runs if run.state is CronRunState.RUNNING]
        if len(going) > 1 and cron.overlap is not OverlapPolicy.ALLOW:
            raise Violation(f"runs {going} of {service.spec.name} overlap at {index}")
        latest = max((run.iteration for run in status.runs), default=0)
        if latest < self._latest.get(service.id, 0):
            raise Violation(f"a run of {service.spec.name} was forgotten while it was the latest, at {index}")
        self._latest[service.id] = latest


def _is_released(old: object, new: object) -> bool:
    """Whether the task may run from here on. One that is only prepared never does, should its predecessor complete: the
    plan that made it may have been on its way together with the report of that."""
    was_held = not isinstance(old, Task) or old.desired_state < _RUNNING
    return was_held and isinstance(new, Task) and new.desired_state is _RUNNING and new.status.state <= _RUNNING


def what_a_job_misses(view: Tables, service: Service) -> Iterator[str]:
    """Once everything is healed: jobs are over, and nothing of runs that are over goes on."""
    name, status = service.spec.name, service.job_status
    if service.spec.stopped or service.awaits_dependencies:
        going: set[int] = set()
    elif service.spec.mode is ServiceMode.CRON:
        runs = service.cron_status.runs if service.cron_status is not None else ()
        going = {run.iteration for run in runs if run.state is CronRunState.RUNNING}
    else:
        going = set()
        is_taken = any(node.spec.availability is Availability.ACTIVE for node in view.nodes.values())
        if is_taken and (status is None or not status.completed_at or status.failed):
            yield f"job {name} is not over: {status}"
    for task in view.service_tasks(service.id):
        if not task.status.state.is_terminal and task.job_iteration not in going:
            yield f"task {task.name} of run {task.job_iteration} of job {name} is {task.status.state.name}"
