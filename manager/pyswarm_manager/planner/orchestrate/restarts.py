"""Tasks that users asked to restart: replaced one after the other, in the order and at the pace of the updates.

Decides when the successor of such a task is made: never more at a time than the service's `parallelism`, those slots
counted that do not run (or not for `delay` yet) for whatever reason. That is no update: the spec stays, so there is
nothing to roll back to, and a successor that fails is restarted as the policy says while the others wait.

Remembers nothing: the request is in the task (`restart_requested`), and ends with it. When the old task stops is
`slots`' to decide, as for every successor.
"""

from __future__ import annotations

from pyswarm_common.model import Task, TaskState
from pyswarm_manager.planner.orchestrate.restart import will_restart
from pyswarm_manager.planner.orchestrate.update import Slots, open_slot
from pyswarm_manager.planner.orchestrate.work import Work
from pyswarm_manager.store.tables import SlotKey

_RUNNING = TaskState.RUNNING


def asked_for(work: Work, slots: Slots, outdated: list[SlotKey]) -> list[SlotKey]:
    """Those of the slots whose task is to be replaced because a user asked for it."""
    return [key for key in outdated if any(_is_asked(task) for task in slots[key])]


def are_by_the_spec(work: Work, slots: Slots, keys: list[SlotKey]) -> bool:
    """Whether nothing but the request is against what runs in the slots: then no update is due."""
    tasks = (task for key in keys for task in slots[key])
    return all(work.is_by_the_spec(task) for task in tasks if task.desired_state <= _RUNNING)


def advance(work: Work, slots: Slots, asked: list[SlotKey]) -> None:
    """Make as many successors as may be made now."""
    if not asked:
        return
    room = len(asked)
    if work.config.parallelism:
        room = work.config.parallelism - sum(_is_open(work, tasks) for tasks in slots.values())
    for key in asked[: max(0, room)]:
        open_slot(work, key, slots[key], _attempts(work, slots[key]))


def _is_asked(task: Task) -> bool:
    return bool(task.restart_requested) and task.desired_state <= _RUNNING


def _attempts(work: Work, tasks: tuple[Task, ...]) -> list[Task]:
    """The successors that were made and have ended: a slot's tasks are in the order in which they were made."""
    last = max(index for index, task in enumerate(tasks) if _is_asked(task))
    return [task for task in tasks[last + 1 :] if task.status.state > _RUNNING and work.is_clean(task)]


def _is_open(work: Work, tasks: tuple[Task, ...]) -> bool:
    for task in tasks:
        if task.desired_state > _RUNNING or not work.is_clean(task):
            continue
        if task.status.state > _RUNNING:
            return will_restart(work.spec.task.restart, task, work.now) and any(_is_asked(other) for other in tasks)
        if task.status.state is not _RUNNING or not work.draft.is_told(task):
            return not work.must_wait(task) and (task.status.state >= TaskState.ASSIGNED or len(tasks) > 1)
        free_at = task.running_at + work.config.delay_s
        if work.is_ahead(free_at, work.config.delay_s):
            work.draft.wake(work.service.id, None, free_at)
            return True
    return False
