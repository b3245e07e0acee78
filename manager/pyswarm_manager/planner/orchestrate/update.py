"""Rolling updates and rollbacks: replaces outdated slots a few at a time, and stops when too many fail.

Progress is read from the tasks each time: a slot is open from when its successor is made until that has run for the
update's delay. Only what cannot be read from them is kept, in `service.update_status`: whether an update runs, since
when, and how it ended. So a new leader goes on in the middle.

Invariant: at most `parallelism` slots are open (zero: all), and after failures beyond `max_failure_ratio` no further
slot is opened.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from pyswarm_common.model import (
    DEFAULT_UPDATE_MONITOR_S,
    FailureAction,
    Service,
    Task,
    TaskState,
    UpdateState,
    UpdateStatus,
)
from pyswarm_manager.planner.orchestrate import slots as slot_rules
from pyswarm_manager.planner.orchestrate.restart import next_restart, run_time, will_restart
from pyswarm_manager.planner.orchestrate.returning import obstacle
from pyswarm_manager.planner.orchestrate.work import Work
from pyswarm_manager.store.tables import SlotKey

_RUNS = (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
_FAILED = (TaskState.FAILED, TaskState.REJECTED)

Slots = dict[SlotKey, tuple[Task, ...]]


@dataclass(slots=True)
class Progress:
    open: int = 0
    """Slots whose successor does not run yet, or not for long enough."""
    failed: str = ""
    """Id of a task that failed too soon."""
    failures: int = 0
    slots: int = 0
    settled_at: float = 0.0
    """When the last successor so far will have run for the monitor time."""


def is_running(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state in _RUNS


def is_held(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state.is_paused


def progress_of(work: Work, slots: Slots) -> Progress:
    """How far the running update is; nothing of it if none runs."""
    status = work.service.update_status
    if status is None or status.state not in _RUNS:
        return Progress()
    return measure(work, slots)


def judge(work: Work, progress: Progress) -> Service:
    """The service as it goes on: the same, or paused or rolled back because the running update fails too often."""
    service = work.service
    allowed = work.config.max_failure_ratio * max(progress.slots, 1)
    if progress.failures <= allowed or work.config.failure_action is FailureAction.CONTINUE:
        return service
    return _stopped(work, service, progress.failed)


def advance(work: Work, slots: Slots, outdated: list[SlotKey], progress: Progress) -> None:
    """Start, go on with, or complete the update of the service."""
    service = work.service
    status = service.update_status
    if status is not None and status.state.is_paused:
        return
    if status is None or status.state not in _RUNS:
        if not outdated:
            return
        status = UpdateStatus(state=UpdateState.UPDATING, started_at=work.now, message="update in progress")
        _say(work, service, status)
    room = len(outdated) if work.config.parallelism == 0 else work.config.parallelism - progress.open
    for key in _in_order(work, slots, outdated)[: max(0, room)]:
        open_slot(work, key, slots[key], _attempts(work, slots[key]))
    if not outdated and not progress.open and not any(_is_between(work, tasks) for tasks in slots.values()):
        _complete_when_settled(work, slots, status, progress)


def _is_between(work: Work, tasks: tuple[Task, ...]) -> bool:
    """Whether what the slot had goes with this plan, and what it gets instead is not among its tasks yet."""
    wanted = [task for task in tasks if task.desired_state <= TaskState.RUNNING]
    return bool(wanted) and not any(work.is_clean(task) and not work.draft.is_leaving(task) for task in wanted)


def measure(work: Work, slots: Slots) -> Progress:
    """How far the update is. A successor is a task made for the present spec, and not the first of its slot.

    Which spec a task was made for, its spec's version says: an update never outlives its spec, and times of several
    leaders cannot be compared.
    """
    progress = Progress()
    monitor = DEFAULT_UPDATE_MONITOR_S if work.config.monitor_s is None else work.config.monitor_s
    for tasks in slots.values():
        if not any(task.desired_state <= TaskState.RUNNING for task in tasks):
            continue
        progress.slots += 1
        failed = ""
        for task in tasks:
            if task.spec_version != work.service.spec_version or not work.is_clean(task):
                continue
            if task.status.state in _FAILED and _failed_soon(task, monitor):
                failed = task.id
            if task.desired_state <= TaskState.RUNNING and len(tasks) > 1:
                _count(work, task, monitor, progress)
        if failed:
            progress.failed = failed
            progress.failures += 1
    return progress


def _count(work: Work, task: Task, monitor: float, progress: Progress) -> None:
    if task.status.state > TaskState.RUNNING:
        progress.open += will_restart(work.spec.task.restart, task, work.now)
        return
    if task.status.state < TaskState.RUNNING or not work.draft.is_told(task):
        progress.open += 1
        return
    if work.is_ahead(task.running_at + monitor, monitor):
        progress.settled_at = max(progress.settled_at, task.running_at + monitor)
    free_at = task.running_at + work.config.delay_s
    if work.is_ahead(free_at, work.config.delay_s):
        progress.open += 1
        work.draft.wake(work.service.id, None, free_at)


def _failed_soon(task: Task, monitor: float) -> bool:
    return not task.running_at or run_time(task) <= monitor


def _in_order(work: Work, slots: Slots, outdated: list[SlotKey]) -> list[SlotKey]:
    """Slots that serve nobody now come first, then those whose successor failed: they stay open until one runs."""
    serving = {key: any(task.status.state is TaskState.RUNNING for task in slots[key]) for key in outdated}
    return sorted(outdated, key=lambda key: (serving[key], not _attempts(work, slots[key])))


def _attempts(work: Work, tasks: tuple[Task, ...]) -> list[Task]:
    version = work.service.spec_version
    return [
        task
        for task in tasks
        if task.status.state > TaskState.RUNNING and task.spec_version == version and work.is_clean(task)
    ]


def open_slot(work: Work, key: SlotKey, tasks: tuple[Task, ...], attempts: list[Task]) -> None:
    """Make the successor. The predecessor stops when that is ready (stop-first) or runs (start-first). `attempts`:
    those that were made before, and have ended."""
    desired = TaskState.RUNNING if work.starts_first else TaskState.READY
    if not attempts:
        work.create(key, desired)
        _discount(work, tasks)
        return
    restart = next_restart(work.spec.task.restart, attempts[-1], work.now, work.draft.rng)
    if restart is None:
        return
    if restart.make_at > work.now:
        work.draft.wake(work.service.id, None, restart.make_at)
        return
    state = TaskState.READY if restart.start_at else desired
    work.create(key, state, restart.start_at, restart.restart_times, restart.failures_in_row)
    _discount(work, tasks)


def _discount(work: Work, tasks: tuple[Task, ...]) -> None:
    for task in tasks:
        if task.desired_state <= TaskState.RUNNING and not work.draft.is_leaving(task):
            work.draft.discount(task)


def _complete_when_settled(work: Work, slots: Slots, status: UpdateStatus, progress: Progress) -> None:
    service = work.service
    if progress.settled_at > work.now:
        work.draft.wake(service.id, None, progress.settled_at)
        return
    is_rollback = status.state is UpdateState.ROLLBACK_STARTED
    done = UpdateStatus(
        state=UpdateState.ROLLBACK_COMPLETED if is_rollback else UpdateState.COMPLETED,
        started_at=status.started_at,
        completed_at=work.now,
        message="rollback completed" if is_rollback else "update completed",
    )
    _say(work, service, done)
    if slot_rules.history_limit(work) == 0:  # the update needed what is history now
        completed = Work(work.draft, msgspec.structs.replace(service, update_status=done))
        for key, tasks in slots.items():
            slot_rules.close(completed, key, tasks, {})


def _stopped(work: Work, service: Service, task_id: str) -> Service:
    why = f"due to failure or early termination of task {task_id}"
    changed = _rolled_back(work, service, why) if work.config.failure_action is FailureAction.ROLLBACK else None
    if changed is None:
        changed = _paused(service, why)
    elif isinstance(changed, str):
        changed = _paused(service, f"{why}, and the previous spec cannot come back: {changed}")
    work.draft.put_service(changed)
    assert changed.update_status is not None
    work.draft.explain(service.id, changed.update_status.message)
    return changed


def _rolled_back(work: Work, service: Service, why: str) -> Service | str | None:
    """The service with its previous spec; what stands against that; None if there is nothing to go back to."""
    status, previous = service.update_status, service.previous_spec
    if previous is None or (status is not None and status.state is UpdateState.ROLLBACK_STARTED):
        return None
    if against := obstacle(work.draft, service.id, previous):
        return against
    back = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at=work.now, message=f"update rolled back {why}")
    return msgspec.structs.replace(service, spec=previous, previous_spec=None, update_status=back)


def _paused(service: Service, why: str) -> Service:
    status = service.update_status
    assert status is not None
    is_rollback = status.state is UpdateState.ROLLBACK_STARTED
    held = UpdateStatus(
        state=UpdateState.ROLLBACK_PAUSED if is_rollback else UpdateState.PAUSED,
        started_at=status.started_at,
        message=f"{'rollback' if is_rollback else 'update'} paused {why}",
    )
    return msgspec.structs.replace(service, update_status=held)


def _say(work: Work, service: Service, status: UpdateStatus) -> None:
    work.draft.put_service(msgspec.structs.replace(service, update_status=status))
    work.draft.explain(service.id, status.message)
