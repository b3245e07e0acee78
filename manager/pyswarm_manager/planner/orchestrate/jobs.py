"""Jobs: tasks that run to their end. One run (iteration) is `total` slots, each done once a task of it has completed.

Decides which tasks a run has: at most `max_concurrent` slots at a time, the lowest first; a task that failed is tried
again as the restart policy says, one whose node is lost is made anew elsewhere; a slot that may not try again is given
up, and the others go on. A run is over when every slot is done or given up.

Level-triggered as everything here: what is done is read from the tasks. Those of slots that are over are forgotten
after a while, so the service's `job_status` counts them (`settled`); it is written before they go, so that every prefix
of a plan counts the same. A slot counts once, however many of its tasks completed (a node that was thought lost may
tell later that its task did).

Never runs a completed slot again, and never two tasks of a slot side by side where both nodes are known to live. Who
acts next: a changed `force_update` or `service run` begins the next run (`begin`), `cron` each tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from msgspec.structs import replace

from pyswarm_common.model import JobStatus, NodeState, Service, ServiceMode, Task, TaskState
from pyswarm_common.model.sizes import job_size
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.orchestrate import slots as slot_rules
from pyswarm_manager.planner.orchestrate.restart import next_restart
from pyswarm_manager.planner.orchestrate.work import Loss, Work
from pyswarm_manager.planner.seat import takes_tasks
from pyswarm_manager.store.tables import SlotKey

KEPT_TASKS = 100
"""Ended tasks of a job that are kept beyond what is needed for counting, the latest: for people, with their logs."""

_RUNNING = TaskState.RUNNING
RunSlots = dict[SlotKey, tuple[Task, ...]]


class Standing(Enum):
    """Of one slot of a run."""

    DONE = auto()
    GIVEN_UP = auto()
    ACTIVE = auto()
    EMPTY = auto()
    """Nothing is wanted in it, and it is not over."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    succeeded: int
    failed: int
    settled: int
    settled_failed: int
    is_over: bool


def begin(service: Service, now: float) -> Service:
    """The service with its next run begun. What is left of the one before ends."""
    before = service.job_status.iteration if service.job_status is not None else 0
    return replace(service, job_status=JobStatus(iteration=before + 1, started_at=now))


def begin_if_forced(before: Service, after: Service, now: float) -> Service:
    """A spec with another `force_update` runs the job again, as in docker. A cron service has its schedule."""
    if not after.spec.mode.is_job or after.spec.mode is ServiceMode.CRON:
        return after
    is_forced = before.spec.task.force_update != after.spec.task.force_update
    return begin(after, now) if is_forced and before.job_status is not None else after


def orchestrate(draft: Draft, service: Service) -> None:
    """Look at a whole replicated-job or global-job."""
    if service.job_status is None:
        service = begin(service, draft.now)
    work = Work(draft, service)
    status = service.job_status
    assert status is not None
    runs = runs_of(draft, service)
    progress = advance(work, status.iteration, runs.pop(status.iteration, {}), status)
    for slots in runs.values():
        end_run(work, slots)
    limit = slot_rules.history_limit(work)
    forget(work, runs, {i: None for i in runs if i > status.iteration - limit})
    put_status(draft, service, advanced(status, progress, draft.now))


def is_at_rest(draft: Draft, service: Service, keys: list[SlotKey]) -> bool:
    """Whether a global job that is over need not be counted again for these slots: they are over as well, or the node
    takes no part. So a change of one node does not cost a look at all of them."""
    status = service.job_status
    if service.spec.mode is not ServiceMode.GLOBAL_JOB or status is None or not status.completed_at:
        return False
    slots = draft.tables.slots.get(service.id, {})
    work = Work(draft, service)
    return all(_is_at_rest(work, key, slots.get(key, ()), status.iteration) for key in keys)


def _is_at_rest(work: Work, key: SlotKey, tasks: tuple[Task, ...], iteration: int) -> bool:
    node = work.draft.tables.nodes.get(key) if isinstance(key, str) else None
    if node is None:
        return not tasks
    if any(task.status.state <= _RUNNING for task in tasks):
        return False
    own = tuple(task for task in tasks if task.job_iteration == iteration)
    is_over = _is_done(own) or any(task.desired_state <= _RUNNING for task in own)
    return is_over or not (takes_tasks(node) and work.hosts(node))


def runs_of(draft: Draft, service: Service) -> dict[int, RunSlots]:
    """The service's tasks by run, then by slot."""
    runs: dict[int, RunSlots] = {}
    for key, tasks in draft.tables.slots.get(service.id, {}).items():
        for task in tasks:
            slots = runs.setdefault(task.job_iteration, {})
            slots[key] = (*slots.get(key, ()), task)
    return runs


def advanced(status: JobStatus, progress: Progress, now: float) -> JobStatus:
    return JobStatus(
        iteration=status.iteration,
        started_at=status.started_at,
        completed_at=(status.completed_at or now) if progress.is_over else 0.0,
        succeeded=progress.succeeded,
        failed=progress.failed,
        settled=progress.settled,
        settled_failed=progress.settled_failed,
    )


def put_status(draft: Draft, service: Service, status: JobStatus) -> None:
    """Keep how far the job is. A rollback of a job is nothing but another spec: no update is under way."""
    changed = replace(service, job_status=status, update_status=None)
    known = draft.service(service.id)
    if changed != known:
        draft.put_service(changed)


# ---- one run


def advance(work: Work, iteration: int, slots: RunSlots, status: JobStatus, *, may_start: bool = True) -> Progress:
    """Go on with a run: settle its slots, and fill as many as may be."""
    if work.spec.mode is ServiceMode.GLOBAL_JOB:
        return _advance_global(work, iteration, slots)
    size = job_size(work.spec)
    standings = _settle_all(work, iteration, slots, status.settled, size.total)
    if may_start and not work.spec.stopped:
        active = sum(standing is Standing.ACTIVE for standing in standings.values())
        free = _free_slots(status.settled, size.total, standings)
        _fill(work, iteration, slots, free, size.concurrent - active)
    succeeded = _count(standings, Standing.DONE) + status.settled - status.settled_failed
    failed = _count(standings, Standing.GIVEN_UP) + status.settled_failed
    settled, settled_failed = _settled(work, slots, standings, status)
    return Progress(succeeded, failed, settled, settled_failed, succeeded + failed >= size.total)


def _settled(work: Work, slots: RunSlots, standings: Mapping[int, Standing], status: JobStatus) -> tuple[int, int]:
    """Up to which slot every slot is over; what is counted so may be forgotten. A run of a cron service is small, and
    its tasks are kept while it goes."""
    settled, settled_failed = status.settled, status.settled_failed
    if work.spec.mode is ServiceMode.CRON:
        return settled, settled_failed
    while (standing := standings.get(settled + 1)) in (Standing.DONE, Standing.GIVEN_UP):
        settled += 1
        settled_failed += standing is Standing.GIVEN_UP
    _forget_settled(work, slots, settled)
    return settled, settled_failed


def end_run(work: Work, slots: RunSlots) -> None:
    """Stop what is left of a run."""
    for key, tasks in slots.items():
        slot_rules.close(work, key, tasks, _alive(tasks))


def forget(work: Work, runs: Mapping[int, RunSlots], kept: Mapping[int, None]) -> None:
    """Of past runs keep the latest tasks, and only those of the runs in `kept`."""
    ended = [
        task for slots in runs.values() for tasks in slots.values() for task in tasks if task.status.state > _RUNNING
    ]
    ended.sort(key=lambda task: (-task.job_iteration, -task.slot, task.id))
    for position, task in enumerate(ended):
        if position >= KEPT_TASKS or task.job_iteration not in kept:
            work.draft.delete(task)


def is_alive(work: Work, task: Task) -> bool:
    """Whether the task may be running somewhere, as far as anybody can tell."""
    if not TaskState.ASSIGNED <= task.status.state <= _RUNNING:
        return False
    node = work.node(task)
    return node is not None and node.status.state is not NodeState.DOWN


def _settle_all(work: Work, iteration: int, slots: RunSlots, settled: int, total: int) -> dict[int, Standing]:
    """The slots that are not settled for good; a slot beyond the total is ended."""
    standings: dict[int, Standing] = {}
    for key, tasks in slots.items():
        if not isinstance(key, int) or key <= settled:
            slot_rules.close(work, key, tasks, _alive(tasks))
        elif key <= total or _is_done(tasks):
            standings[key] = settle(work, iteration, key, tasks)
        else:
            slot_rules.close(work, key, tasks, {task.id: None for task in tasks if task.desired_state <= _RUNNING})
    return standings


def _count(standings: Mapping[int, Standing], wanted: Standing) -> int:
    return sum(standing is wanted for standing in standings.values())


def _fill(work: Work, iteration: int, slots: RunSlots, free: Iterator[int], room: int) -> None:
    """Begin the lowest slots that are free."""
    left = work.draft.tasks_left()
    if room > left:
        work.draft.unfinished.services[work.service.id] = None
    for _, key in zip(range(min(room, left)), free, strict=False):
        _begin_slot(work, iteration, key, slots.get(key, ()))


def _begin_slot(work: Work, iteration: int, key: SlotKey, tasks: tuple[Task, ...]) -> None:
    """Its first task, or its first since the job was stopped: what was told to stop then may run still."""
    desired = TaskState.READY if any(is_alive(work, task) for task in tasks) else _RUNNING
    work.create(key, desired, job_iteration=iteration)


def _free_slots(settled: int, total: int, standings: Mapping[int, Standing]) -> Iterator[int]:
    for number in range(settled + 1, total + 1):
        if standings.get(number, Standing.EMPTY) is Standing.EMPTY:
            yield number


def _forget_settled(work: Work, slots: RunSlots, settled: int) -> None:
    """Slots that are counted need no tasks; the latest are kept for people."""
    keys = [key for key in slots if isinstance(key, int) and key <= settled]
    kept = KEPT_TASKS if slot_rules.history_limit(work) else 0
    for key in sorted(keys)[: max(0, len(keys) - kept)]:
        for task in slots[key]:
            if task.status.state > _RUNNING:
                work.draft.delete(task)


def _advance_global(work: Work, iteration: int, slots: RunSlots) -> Progress:
    """Every node that may host the job runs it once, also one that comes later."""
    nodes = work.draft.tables.nodes
    standings: list[Standing] = []
    for key in dict.fromkeys((*slots, *nodes)):
        standing = _settle_node(work, iteration, key, slots.get(key, ()))
        if standing is not None:
            standings.append(standing)
    succeeded = sum(standing is Standing.DONE for standing in standings)
    failed = sum(standing is Standing.GIVEN_UP for standing in standings)
    return Progress(succeeded, failed, 0, 0, bool(standings) and succeeded + failed == len(standings))


def _settle_node(work: Work, iteration: int, key: SlotKey, tasks: tuple[Task, ...]) -> Standing | None:
    """The standing of one node; None if it takes no part."""
    node = work.draft.tables.nodes.get(key) if isinstance(key, str) else None
    if node is None:
        slot_rules.dismiss(work, key, tasks, TaskState.REMOVE)
        return None
    if _is_done(tasks) or work.hosts(node):
        standing = settle(work, iteration, key, tasks)
    else:
        slot_rules.close(work, key, tasks, {task.id: None for task in tasks if task.desired_state <= _RUNNING})
        return None
    if standing is not Standing.EMPTY:
        return standing
    if not takes_tasks(node):
        return None
    if not work.spec.stopped:
        _begin_slot(work, iteration, key, tasks)
    return Standing.EMPTY


# ---- one slot


def settle(work: Work, iteration: int, key: SlotKey, tasks: tuple[Task, ...]) -> Standing:
    """Decide about one slot of a run that goes on."""
    retired: dict[str, None] = {}
    if _is_done(tasks):
        standing = Standing.DONE
        retired.update(_alive(tasks))
    elif work.spec.stopped:
        standing = Standing.EMPTY
        retired.update(_alive(tasks))
    else:
        standing = _go_on(work, iteration, key, tasks, retired)
    # The task that completed is what counts: no history that is cut short may take it away.
    rest = tuple(task for task in tasks if task.status.state is not TaskState.COMPLETE)
    slot_rules.close(work, key, rest, retired)
    return standing


def _go_on(work: Work, iteration: int, key: SlotKey, tasks: tuple[Task, ...], retired: dict[str, None]) -> Standing:
    wanted = [task for task in tasks if task.desired_state <= _RUNNING]
    going = [task for task in wanted if task.status.state <= _RUNNING]
    staying = [task for task in going if _stays(work, key, task)]
    if staying:
        keep = max(staying, key=lambda task: (task.desired_state, task.status.state))
        retired.update((task.id, None) for task in wanted if task is not keep)
        _release(work, key, tasks, keep)
        return Standing.ACTIVE
    if going:
        retired.update((task.id, None) for task in wanted)
        if _may_be_made(work, key):
            desired = TaskState.READY if any(is_alive(work, task) for task in tasks) else _RUNNING
            work.create(key, desired, restart_times=going[-1].restart_times, job_iteration=iteration)
        return Standing.ACTIVE
    if not wanted:
        return Standing.EMPTY
    last = max(wanted, key=lambda task: task.ended_at)
    retired.update((task.id, None) for task in wanted if task is not last)
    return _try_again(work, iteration, key, last, retired)


def _stays(work: Work, key: SlotKey, task: Task) -> bool:
    """Whether the task may go on where it is. On a drained node it may end by itself until the node's deadline."""
    loss = work.loss(task)
    if loss is Loss.DRAINED:
        node = work.node(task)
        if node is None or not node.spec.drain_deadline_s or task.status.state is not _RUNNING:
            return False
        work.drain.wake_at_deadline(key, [task])
        return True
    return loss is Loss.NONE


def _try_again(work: Work, iteration: int, key: SlotKey, last: Task, retired: dict[str, None]) -> Standing:
    restart = next_restart(work.spec.task.restart, last, work.now, work.draft.rng)
    if restart is None:
        return Standing.GIVEN_UP
    if restart.make_at > work.now:
        work.draft.wake(work.service.id, None, restart.make_at)
    elif _may_be_made(work, key):
        desired = TaskState.READY if restart.start_at else _RUNNING
        times, failures = restart.restart_times, restart.failures_in_row
        work.create(key, desired, restart.start_at, times, failures, job_iteration=iteration)
        retired[last.id] = None
    return Standing.ACTIVE


def _may_be_made(work: Work, key: SlotKey) -> bool:
    if not isinstance(key, str):
        return True
    node = work.draft.tables.nodes.get(key)
    return node is not None and takes_tasks(node)


def _release(work: Work, key: SlotKey, tasks: tuple[Task, ...], keep: Task) -> None:
    """Let a prepared task start, when its delay is over and no other task of the slot may still run."""
    if keep.desired_state >= _RUNNING:
        return
    if work.must_wait(keep):
        work.draft.wake(work.service.id, None, keep.start_at)
    elif not any(is_alive(work, task) for task in tasks if task is not keep):
        work.draft.desire(keep, _RUNNING)


def _is_done(tasks: tuple[Task, ...]) -> bool:
    return any(task.status.state is TaskState.COMPLETE for task in tasks)


def _alive(tasks: tuple[Task, ...]) -> dict[str, None]:
    """The wanted tasks that have not ended: to be stopped."""
    return {task.id: None for task in tasks if task.desired_state <= _RUNNING and task.status.state <= _RUNNING}
