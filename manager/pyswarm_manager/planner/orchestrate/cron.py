"""Cron: which ticks of a schedule become runs, and how the runs go.

Decides about every tick exactly once. The decision is one change of the service: `last_tick_at`, the run (or that the
tick was passed over) and its number, written with the version that was read. So whichever leader commits it, every
other one finds it decided, and a leader that died before is followed by one that decides it late. A tick later than the
starting deadline is recorded as skipped. Nothing depends on whose clock is right: ticks are counted from the last one,
and a clock that is set back waits for the next tick instead of repeating one.

Never polls: `decide` says when the next tick is, and the plan wakes then. Who acts next: `jobs` makes the tasks.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import CronRun, CronRunState, CronSpec, CronStatus, JobStatus, OverlapPolicy, Service
from pyswarm_common.schedule import Schedule, parse_schedule
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.orchestrate import jobs
from pyswarm_manager.planner.orchestrate.jobs import RunSlots
from pyswarm_manager.planner.orchestrate.work import Work

DEFAULT_DEADLINE_S = 300.0
DEFAULT_HISTORY = 10
MAX_RUNS = 100
"""Runs of one service at a time, where they may overlap."""
MAX_TICKS = 100
"""Ticks decided in one plan; the others come with the next."""
MAX_AHEAD_S = 3600.0
"""A last tick further ahead than this was written by a leader whose clock was wrong: counting begins anew."""

_RUN_STATES = (CronRunState.RUNNING, CronRunState.COMPLETE, CronRunState.FAILED, CronRunState.REPLACED)


def orchestrate(draft: Draft, service: Service) -> None:
    """Decide about the ticks that are due, and go on with the runs."""
    decided, next_tick = decide(service, draft.now)
    if next_tick is not None:
        draft.wake(service.id, None, next_tick)
    work = Work(draft, decided)
    slots = jobs.runs_of(draft, decided)
    status = decided.cron_status or CronStatus()
    going = {run.iteration: None for run in status.runs if run.state is CronRunState.RUNNING}
    past = {iteration: found for iteration, found in slots.items() if iteration not in going}
    may_start = not _must_wait(work, past)
    runs = tuple(_advanced(work, run, slots, may_start=may_start) for run in status.runs)
    for found in past.values():
        jobs.end_run(work, found)
    jobs.forget(work, past, {run.iteration: None for run in runs if run.iteration})
    changed = replace(decided, cron_status=replace(status, runs=runs))
    jobs.put_status(draft, changed, _job_status(decided.job_status, runs))


def decide(service: Service, now: float) -> tuple[Service, float | None]:
    """The service with every due tick decided, and the next tick."""
    spec = service.spec.cron
    if spec is None:
        return service, None
    if service.spec.stopped:
        # What would have come meanwhile is not made up for: counting begins anew with the start.
        status = service.cron_status
        return (service if status is None else replace(service, cron_status=replace(status, schedule=""))), None
    schedule = parse_schedule(spec.schedule, spec.time_zone)
    service = _anchored(service, spec, now)
    service = _passed_over(service, spec, schedule, now)
    for _ in range(MAX_TICKS):
        tick = _next_tick(service, schedule)
        if tick is None or tick > now:
            return service, tick
        service = _decided(service, spec, tick, now)
    return service, _next_tick(service, schedule)


def run_now(service: Service, now: float) -> Service:
    """Another run besides the schedule. Raises FailedPrecondition where runs may not overlap and one is going."""
    spec = service.spec.cron or CronSpec()
    going = _going(service)
    if going and spec.overlap is OverlapPolicy.FORBID:
        raise FailedPrecondition(
            f"run {going[-1].iteration} of service {service.spec.name} is still going, and its runs may not overlap: "
            "wait for its end"
        )
    if len(going) >= MAX_RUNS and spec.overlap is OverlapPolicy.ALLOW:
        raise FailedPrecondition(f"{len(going)} runs of service {service.spec.name} are going: wait for one to end")
    return _begun(service, spec, 0.0, now)


# ---- ticks


def _anchored(service: Service, spec: CronSpec, now: float) -> Service:
    """Ticks are counted from when the service got this schedule."""
    status = service.cron_status or CronStatus()
    key = f"{spec.schedule} {spec.time_zone}".strip()
    if status.schedule == key and status.last_tick_at <= now + MAX_AHEAD_S:
        return service
    return replace(service, cron_status=replace(status, schedule=key, last_tick_at=now))


def _passed_over(service: Service, spec: CronSpec, schedule: Schedule, now: float) -> Service:
    """Ticks that are too late: one record for all of them."""
    status = service.cron_status
    assert status is not None
    deadline_s = spec.starting_deadline_s or DEFAULT_DEADLINE_S
    too_late = now - deadline_s
    tick = _next_tick(service, schedule)
    if tick is None or tick >= too_late:
        return service
    later = schedule.after(tick, status.last_tick_at)
    what = "it was" if later is None or later >= too_late else "it and others after it were"
    message = f"{what} missed by more than {deadline_s:g} s"
    status = replace(status, last_tick_at=schedule.anchor_at(too_late, status.last_tick_at))
    return _recorded(replace(service, cron_status=status), spec, _skipped(tick, message))


def _next_tick(service: Service, schedule: Schedule) -> float | None:
    status = service.cron_status
    assert status is not None
    return schedule.after(status.last_tick_at, status.last_tick_at)


def _decided(service: Service, spec: CronSpec, tick: float, now: float) -> Service:
    status = service.cron_status
    assert status is not None
    service = replace(service, cron_status=replace(status, last_tick_at=tick))
    going = _going(service)
    if going and spec.overlap is OverlapPolicy.FORBID:
        return _recorded(service, spec, _skipped(tick, f"run {going[-1].iteration} was still going"))
    if len(going) >= MAX_RUNS and spec.overlap is OverlapPolicy.ALLOW:
        return _recorded(service, spec, _skipped(tick, f"{len(going)} runs were still going"))
    return _begun(service, spec, tick, now)


def _begun(service: Service, spec: CronSpec, tick: float, now: float) -> Service:
    service = jobs.begin(service, now)
    assert service.job_status is not None
    iteration = service.job_status.iteration
    if spec.overlap is OverlapPolicy.REPLACE:
        service = _replaced(service, iteration, now)
    return _recorded(service, spec, CronRun(tick_at=tick, started_at=now, iteration=iteration))


def _replaced(service: Service, iteration: int, now: float) -> Service:
    status = service.cron_status or CronStatus()
    message = f"replaced by run {iteration}"
    runs = tuple(
        replace(run, state=CronRunState.REPLACED, completed_at=now, message=message)
        if run.state is CronRunState.RUNNING
        else run
        for run in status.runs
    )
    return replace(service, cron_status=replace(status, runs=runs))


def _skipped(tick: float, message: str) -> CronRun:
    return CronRun(tick_at=tick, state=CronRunState.SKIPPED, message=message)


def _recorded(service: Service, spec: CronSpec, run: CronRun) -> Service:
    status = service.cron_status or CronStatus()
    return replace(service, cron_status=replace(status, runs=_bounded((*status.runs, run), spec)))


def _bounded(runs: tuple[CronRun, ...], spec: CronSpec) -> tuple[CronRun, ...]:
    """As many past runs as the history may have, and as many skipped ticks; a run that is going always stays."""
    limit = spec.history_limit or DEFAULT_HISTORY
    past = [run for run in runs if run.state not in (CronRunState.RUNNING, CronRunState.SKIPPED)]
    skipped = [run for run in runs if run.state is CronRunState.SKIPPED]
    dropped = {id(run) for run in (*past[: max(0, len(past) - limit)], *skipped[: max(0, len(skipped) - limit)])}
    return tuple(run for run in runs if id(run) not in dropped)


# ---- runs


def _going(service: Service) -> list[CronRun]:
    status = service.cron_status
    return [run for run in status.runs if run.state is CronRunState.RUNNING] if status is not None else []


def _must_wait(work: Work, past: dict[int, RunSlots]) -> bool:
    """Whether tasks of a run that was replaced may still be running: the next one starts after them."""
    spec = work.spec.cron
    if spec is None or spec.overlap is not OverlapPolicy.REPLACE:
        return False
    return any(jobs.is_alive(work, task) for slots in past.values() for tasks in slots.values() for task in tasks)


def _advanced(work: Work, run: CronRun, slots: dict[int, RunSlots], *, may_start: bool) -> CronRun:
    if run.state is not CronRunState.RUNNING:
        return run
    found = slots.get(run.iteration, {})
    # Nothing of a run is forgotten while it goes: its tasks say how far it is.
    progress = jobs.advance(work, run.iteration, found, JobStatus(iteration=run.iteration), may_start=may_start)
    changed = replace(run, succeeded=progress.succeeded, failed=progress.failed)
    if not progress.is_over:
        return changed
    state = CronRunState.FAILED if progress.failed else CronRunState.COMPLETE
    return replace(changed, state=state, completed_at=work.now, message=_failures(progress.failed))


def _failures(failed: int) -> str:
    if not failed:
        return ""
    return f"{failed} {'task' if failed == 1 else 'tasks'} failed as often as the restart policy allows"


def _job_status(status: JobStatus | None, runs: tuple[CronRun, ...]) -> JobStatus:
    """What there is to say of the latest run."""
    latest = next((run for run in reversed(runs) if run.state in _RUN_STATES), None)
    number = status.iteration if status is not None else 0
    if latest is None:
        return status or JobStatus()
    return JobStatus(
        iteration=max(number, latest.iteration),
        started_at=latest.started_at,
        completed_at=latest.completed_at,
        succeeded=latest.succeeded,
        failed=latest.failed,
    )
