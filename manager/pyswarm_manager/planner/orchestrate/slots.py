"""One slot: what happens to the tasks in it, whatever the mode of its service.

Decides from the tasks alone (level-triggered), so that it can go on from any state that an interrupted plan left:
- one task by the present spec is enough; others stop once it runs (or at once, if they are of no use);
- a task whose node is lost, drained or unfit is replaced at once (with order start-first, a drained one stays until its
  successor runs; with stop-first the successor starts when the other has ended, unless its node is down or gone);
- a task that ended is replaced as the restart policy says; one that may not be replaced (yet) stays as the slot's last
  word;
- with order stop-first a successor is prepared (READY) before its predecessor is told to stop, and starts after that
  has ended; where there is no room for both it is prepared in its predecessor's place (`schedule.swap`), and only if
  that cannot be either, the predecessor stops at once.

Who acts next: `update` replaces slots that are OUTDATED, a few at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from pyswarm_common.model import ClusterSpec, Node, NodeState, Task, TaskState, TaskStatus, UpdateState
from pyswarm_manager.planner.allocate.attaching import waits_for_addresses_of
from pyswarm_manager.planner.orchestrate.restart import next_restart
from pyswarm_manager.planner.orchestrate.work import Loss, Work
from pyswarm_manager.planner.schedule.swap import swap
from pyswarm_manager.planner.seat import takes_tasks
from pyswarm_manager.store.tables import SlotKey

_RUNNING = TaskState.RUNNING
_Retired = dict[str, None]


class Verdict(Enum):
    FINE = auto()
    """Nothing, or all that can be done now."""
    OUTDATED = auto()
    """Its only useful task is of an older spec."""


def settle(work: Work, key: SlotKey, tasks: tuple[Task, ...]) -> Verdict:
    """Decide about a slot that should hold a task."""
    if work.is_settled(tasks):
        return Verdict.FINE
    retired: _Retired = {}
    verdict = _decide(work, key, tasks, retired)
    close(work, key, tasks, retired)
    return verdict


def dismiss(work: Work, key: SlotKey, tasks: tuple[Task, ...], desired: TaskState) -> None:
    """Empty a slot that should hold nothing: SHUTDOWN keeps its history, REMOVE does not."""
    if desired is TaskState.REMOVE:
        for task in tasks:
            _end(work, task, TaskState.REMOVE, key)
    else:
        close(work, key, tasks, {task.id: None for task in tasks if task.desired_state <= _RUNNING})


def close(work: Work, key: SlotKey, tasks: tuple[Task, ...], retired: _Retired) -> None:
    """Tell the retired tasks to stop, forget what nobody will report on, and keep the history short."""
    past = []
    for task in tasks:
        desired = max(task.desired_state, TaskState.SHUTDOWN) if task.id in retired else task.desired_state
        if desired > _RUNNING and _end(work, task, desired, key):
            past.append(task)
    limit = history_limit(work)
    if _is_updating(work):
        limit = max(limit, 1)  # the update tells from the history which slots it has replaced
    for task in past[: max(0, len(past) - limit)]:
        work.draft.delete(task)


def first_state(work: Work, tasks: tuple[Task, ...]) -> TaskState:
    """How a slot without a wanted task begins anew: what stops there may not have ended yet."""
    return TaskState.READY if _predecessor_stops(work, tasks) else _RUNNING


def history_limit(work: Work) -> int:
    """How many ended tasks a slot keeps."""
    cluster = work.draft.tables.cluster
    return cluster.spec.task_history_limit if cluster is not None else ClusterSpec().task_history_limit


@dataclass(slots=True)
class _Wanted:
    """The slot's wanted tasks by what can be done with them."""

    current: list[Task] = field(default_factory=list)
    outdated: list[Task] = field(default_factory=list)
    leaving: list[Task] = field(default_factory=list)
    """Running on a drained node, or (with start-first) on an unfit one: they stay until replaced."""
    lost: list[Task] = field(default_factory=list)
    ended: list[Task] = field(default_factory=list)
    stale: list[Task] = field(default_factory=list)
    """Waiting for a node or addresses by a spec that has changed since: they serve nobody, and are replaced at once
    (beside a successor they would run with it once there is room for both)."""


def _sort(work: Work, tasks: tuple[Task, ...]) -> _Wanted:
    wanted = _Wanted()
    moved = [task.replaces for task in tasks if task.replaces and _takes_over(work, task)]
    for task in tasks:
        if task.desired_state > _RUNNING:
            continue
        loss = work.loss(task)
        if work.is_stale(task):
            wanted.stale.append(task)
        elif task.status.state > _RUNNING:
            wanted.ended.append(task)
        elif loss is Loss.NONE and task.id in moved and task.status.state is _RUNNING:
            wanted.leaving.append(task)
        elif loss is Loss.NONE:
            (wanted.current if work.is_clean(task) else wanted.outdated).append(task)
        elif task.status.state is _RUNNING and (loss is Loss.DRAINED or (loss is Loss.UNFIT and work.starts_first)):
            wanted.leaving.append(task)
        else:
            wanted.lost.append(task)
    return wanted


def _takes_over(work: Work, task: Task) -> bool:
    """Whether the task is there to take over from the one that it names."""
    if task.desired_state > _RUNNING or task.status.state > _RUNNING:
        return False
    return work.loss(task) is Loss.NONE and work.is_clean(task)


def _decide(work: Work, key: SlotKey, tasks: tuple[Task, ...], retired: _Retired) -> Verdict:
    wanted = _sort(work, tasks)
    work.drain.wake_at_deadline(key, wanted.leaving)
    for task in wanted.stale:
        work.draft.delete(task)
    if wanted.current:
        _retire(retired, (*wanted.ended, *wanted.lost))
        _keep_one(work, key, tasks, wanted, retired)
        return Verdict.FINE
    if wanted.leaving and not any(task.status.state is _RUNNING for task in wanted.outdated):
        wanted.lost += wanted.outdated  # a successor that is outdated before it ran: what runs still has to leave
    elif wanted.outdated:
        _retire(retired, (*wanted.ended, *wanted.lost))
        _retire_served(work, max(wanted.outdated, key=_how_far), tuple(wanted.leaving), retired)
        return Verdict.OUTDATED
    if _is_moved_later(work, key, wanted):
        return Verdict.FINE
    if _may_start(work, key):
        _replace(work, key, tasks, wanted, retired)
    return Verdict.FINE


def _is_moved_later(work: Work, key: SlotKey, wanted: _Wanted) -> bool:
    """Whether a drain takes other slots first. One whose successor ended was begun with, and goes on."""
    if wanted.lost or wanted.ended or not any(work.loss(task) is Loss.DRAINED for task in wanted.leaving):
        return False
    return not work.drain.may_open()


def _replace(work: Work, key: SlotKey, tasks: tuple[Task, ...], wanted: _Wanted, retired: _Retired) -> None:
    """No task of the slot can stay: make one, unless the last one ended for good."""
    is_prepared_first = _predecessor_stops(work, tasks) or (
        not work.starts_first and (wanted.leaving or any(_holds_back(work, task, True) for task in wanted.lost))
    )
    desired = TaskState.READY if is_prepared_first else _RUNNING
    if wanted.lost or (wanted.leaving and not wanted.ended):
        last = (wanted.lost or wanted.leaving)[-1]
        work.create(key, desired, 0.0, last.restart_times, last.failures_in_row)
        _retire(retired, (*wanted.lost, *wanted.ended))
    elif wanted.ended:
        last = wanted.ended[-1]  # the one that was made last: times of several leaders cannot be compared
        _retire(retired, (task for task in wanted.ended if task is not last))
        if not _restart(work, key, last, desired, retired):
            _retire(retired, wanted.leaving)  # whose successor has ended for good
    elif wanted.stale:
        last = wanted.stale[-1]
        work.create(key, last.desired_state, last.start_at, last.restart_times, last.failures_in_row)
    else:
        work.create(key, desired)


def _predecessor_stops(work: Work, tasks: tuple[Task, ...]) -> bool:
    """With stop-first: whether the one to be replaced was itself a successor, whose predecessor has not ended yet."""
    return not work.starts_first and any(t.desired_state > _RUNNING and _holds_back(work, t, True) for t in tasks)


def _restart(work: Work, key: SlotKey, last: Task, desired: TaskState, retired: _Retired) -> bool:
    """Make the next one, now or when its time has come; returns False if there is to be none."""
    if not work.is_clean(last):
        work.create(key, desired)
        _retire(retired, (last,))
        return True
    restart = next_restart(work.spec.task.restart, last, work.now, work.draft.rng)
    if restart is None:
        return False
    if restart.make_at > work.now:
        work.draft.wake(work.service.id, key, restart.make_at)
        return True
    desired = TaskState.READY if restart.start_at else desired
    successor = work.create(key, desired, restart.start_at, restart.restart_times, restart.failures_in_row)
    if last.running_at:
        successor.home = last.node_id  # it ran there, and its image is there
    _retire(retired, (last,))
    return True


def _may_start(work: Work, key: SlotKey) -> bool:
    """A global service's task starts on its own node or not at all."""
    if not isinstance(key, str):
        return True
    node = work.draft.tables.nodes.get(key)
    return node is not None and work.accepts(node)


def _keep_one(work: Work, key: SlotKey, tasks: tuple[Task, ...], wanted: _Wanted, retired: _Retired) -> None:
    keep = max(wanted.current, key=lambda task: (*_how_far(task), work.draft.knows(task)))
    old = (*wanted.outdated, *wanted.leaving)
    twins = [task for task in wanted.current if task is not keep]
    if keep.status.state is _RUNNING:
        _retire_served(work, keep, (*old, *twins), retired)
    else:
        idle = [task for task in wanted.outdated if _is_overtaken(task)]
        _retire(retired, (*twins, *idle))
        _make_way(work, key, keep, tuple(task for task in old if task not in idle), retired)
    if keep.desired_state < _RUNNING:
        _release(work, key, tasks, keep, retired)


def _how_far(task: Task) -> tuple[TaskState, TaskState]:
    return task.desired_state, task.status.state


def _is_overtaken(task: Task) -> bool:
    """Whether an outdated task was prepared for later: nobody will start it, and it keeps room from its successor."""
    return task.desired_state < _RUNNING and task.status.state < _RUNNING


def _make_way(work: Work, key: SlotKey, keep: Task, old: tuple[Task, ...], retired: _Retired) -> None:
    """Stop the old ones for a successor that does not run yet, if it waits for nothing else."""
    if old and work.must_wait(keep):
        work.draft.wake(work.service.id, key, keep.start_at)
    elif old and (_is_prepared(work, keep) or _must_stop_first(work, keep, old)):
        _retire(retired, old)
    else:
        for task in old:
            work.draft.discount(task)


def _retire_served(work: Work, keep: Task, others: tuple[Task, ...], retired: _Retired) -> None:
    """The others serve until every load balancer knows the one that stays."""
    if others and work.draft.is_told(keep):
        _retire(retired, others)


def _is_prepared(work: Work, keep: Task) -> bool:
    """With stop-first: whether nothing but its predecessor keeps the successor from starting."""
    return not work.starts_first and keep.desired_state < _RUNNING and keep.status.state >= TaskState.READY


def _must_stop_first(work: Work, keep: Task, old: tuple[Task, ...]) -> bool:
    """Whether there is no other way to room for the successor than the end of its predecessor.

    With start-first the successor would not wait for that end, so the two cannot be beside each other. Nor can two
    tasks with the one static address of their slot.
    """
    if keep.status.state is TaskState.NEW:
        return waits_for_addresses_of(work.draft, keep, old)
    return _stopping_helps(work, keep, old) and (work.starts_first or not swap(work.draft, keep, old))


def _stopping_helps(work: Work, keep: Task, old: tuple[Task, ...]) -> bool:
    """Whether the successor waits for room that its predecessor's end would give.

    With start-first only for host ports, which two tasks can never share: for anything else the user rather waits.
    """
    if keep.status.state is not TaskState.PENDING or (work.starts_first and not work.has_host_ports):
        return False
    nodes = (work.node(task) for task in old)
    return any(node is not None and takes_tasks(node) and work.hosts(node) for node in nodes)


def _release(work: Work, key: SlotKey, tasks: tuple[Task, ...], keep: Task, retired: _Retired) -> None:
    """Let a prepared successor start: after its delay, and (unless start-first) after its predecessors have ended."""
    if work.must_wait(keep):
        work.draft.wake(work.service.id, key, keep.start_at)
        return
    for task in tasks:
        if task is not keep and _holds_back(work, task, task.id in retired):
            return
    work.draft.desire(keep, _RUNNING)


def _holds_back(work: Work, task: Task, is_retired: bool) -> bool:
    wanted = task.desired_state <= _RUNNING and not is_retired
    if wanted and work.starts_first:
        return False
    if not TaskState.ASSIGNED <= task.status.state <= _RUNNING or task.desired_state is TaskState.REMOVE:
        return False
    node = work.node(task)
    return node is not None and node.status.state is not NodeState.DOWN


def _end(work: Work, task: Task, desired: TaskState, key: SlotKey) -> bool:
    """Carry out that the task is no longer wanted; returns whether it has become history."""
    node = work.node(task)
    draft = work.draft
    if task.status.state < TaskState.ASSIGNED:
        draft.delete(task)
        return False
    ended = task.status.state > _RUNNING
    if desired is TaskState.REMOVE and (ended or node is None or node.status.state is NodeState.DOWN):
        draft.delete(task)
        return False
    draft.desire(task, desired)
    if not ended and _is_orphaned(work, node, key):
        draft.set_status(task, _orphaned(task, work.now))
        return True
    return ended and desired is not TaskState.REMOVE


def _is_orphaned(work: Work, node: Node | None, key: SlotKey) -> bool:
    if node is None:
        return True
    if node.status.state is not NodeState.DOWN:
        return False
    at = node.status.changed_at + _orphan_after_s(work)
    if at > work.now:
        work.draft.wake(work.service.id, key, at)
    return at <= work.now


def _orphan_after_s(work: Work) -> float:
    cluster = work.draft.tables.cluster
    return (cluster.spec if cluster is not None else ClusterSpec()).orphan_grace_s


def _orphaned(task: Task, now: float) -> TaskStatus:
    return TaskStatus(
        timestamp=now,
        state=TaskState.ORPHANED,
        message="its node was lost: nothing is known of it",
        container=task.status.container,
    )


def _is_updating(work: Work) -> bool:
    status = work.service.update_status
    return status is not None and status.state in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)


def _retire(retired: _Retired, tasks: Iterable[Task]) -> None:
    retired.update((task.id, None) for task in tasks)
