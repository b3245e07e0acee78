"""Replicated services: as many slots as replicas, wherever there is room."""

from __future__ import annotations

from itertools import islice

from pyswarm_common.model import Task, TaskState
from pyswarm_common.model.sizes import wanted_replicas
from pyswarm_manager.planner.orchestrate import slots as slot_rules
from pyswarm_manager.planner.orchestrate.slots import Verdict
from pyswarm_manager.planner.orchestrate.update import Slots
from pyswarm_manager.planner.orchestrate.work import Work
from pyswarm_manager.store.tables import SlotKey

_RUNNING = TaskState.RUNNING


def reconcile(work: Work, slots: Slots) -> list[SlotKey]:
    """Bring the number of slots to what is wanted, and settle each; returns the outdated ones."""
    filled: Slots = {
        key: tasks
        for key, tasks in slots.items()
        if key.__class__ is int and (tasks[0].desired_state <= _RUNNING or _is_filled(tasks))
    }
    surplus = _surplus(filled, len(filled) - wanted_replicas(work.service))
    given_up = set(islice(surplus, work.draft.removals_left()))
    if len(given_up) < len(surplus):
        work.draft.unfinished.services[work.service.id] = None
    outdated: list[SlotKey] = []
    for key, tasks in slots.items():
        if isinstance(key, str) or key in given_up:
            slot_rules.dismiss(work, key, tasks, TaskState.REMOVE)
        elif key in surplus:
            continue  # in one of the next plans
        elif key not in filled:
            slot_rules.close(work, key, tasks, {})
        elif slot_rules.settle(work, key, tasks) is Verdict.OUTDATED:
            outdated.append(key)
    _add(work, filled, wanted_replicas(work.service) - len(filled))
    return outdated


def reconcile_slot(work: Work, key: SlotKey, tasks: tuple[Task, ...]) -> Verdict:
    """Settle one slot without counting the others."""
    if _is_filled(tasks):
        return slot_rules.settle(work, key, tasks)
    slot_rules.close(work, key, tasks, {})
    return Verdict.FINE


def _is_filled(tasks: tuple[Task, ...]) -> bool:
    return any(task.desired_state <= _RUNNING for task in tasks)


def _add(work: Work, filled: Slots, missing: int) -> None:
    """New slots take the lowest free numbers."""
    left = work.draft.tasks_left()
    if missing > left:
        work.draft.unfinished.services[work.service.id] = None
    slots = work.draft.tables.slots.get(work.service.id, {})
    number = 0
    for _ in range(min(missing, left)):
        number += 1
        while number in filled:
            number += 1
        work.create(number, slot_rules.first_state(work, slots.get(number, ())))


def _surplus(filled: Slots, count: int) -> dict[SlotKey, None]:
    """Which slots to give up: those that do not run first, then those on the nodes with most tasks of the service."""
    if count <= 0:
        return {}
    on_node: dict[str, int] = {}
    ranked: list[tuple[int, int, SlotKey]] = []
    for key in sorted(filled, key=_number):
        running = [task for task in filled[key] if _runs(task)]
        if not running:
            ranked.append((0, -_number(key), key))
            continue
        position = on_node[running[0].node_id] = on_node.get(running[0].node_id, 0) + 1
        ranked.append((1, -position, key))
    # The n-th task on its node goes before every (n-1)-th: what is left is spread as evenly as it can be.
    ranked.sort(key=lambda entry: (entry[0], entry[1], -_number(entry[2])))
    return {key: None for _, _, key in ranked[:count]}


def _runs(task: Task) -> bool:
    return task.desired_state <= TaskState.RUNNING and task.status.state is TaskState.RUNNING


def _number(key: SlotKey) -> int:
    return key if isinstance(key, int) else 0
