"""Global services: one slot on every node that may host the service.

A node that is down or paused keeps its task; a new one starts only on a node that takes tasks. A node that is drained
or no longer fits has its task stopped.
"""

from __future__ import annotations

from pyswarm_common.model import Task, TaskState
from pyswarm_manager.planner.orchestrate import slots as slot_rules
from pyswarm_manager.planner.orchestrate.slots import Verdict
from pyswarm_manager.planner.orchestrate.update import Slots
from pyswarm_manager.planner.orchestrate.work import Work
from pyswarm_manager.store.tables import SlotKey


def reconcile(work: Work, slots: Slots) -> list[SlotKey]:
    """Settle the slot of every node; returns the outdated ones."""
    nodes = work.draft.tables.nodes
    outdated: list[SlotKey] = []
    for key in dict.fromkeys((*slots, *nodes)):
        if reconcile_slot(work, key, slots.get(key, ())) is Verdict.OUTDATED:
            outdated.append(key)
    return outdated


def reconcile_slot(work: Work, key: SlotKey, tasks: tuple[Task, ...]) -> Verdict:
    """Settle the slot of one node without looking at the others."""
    node = work.draft.tables.nodes.get(key) if isinstance(key, str) else None
    if node is None or work.spec.stopped:
        slot_rules.dismiss(work, key, tasks, TaskState.REMOVE)
        return Verdict.FINE
    if not work.hosts(node):
        slot_rules.dismiss(work, key, tasks, TaskState.SHUTDOWN)
        return Verdict.FINE
    if any(task.desired_state <= TaskState.RUNNING for task in tasks):
        return slot_rules.settle(work, key, tasks)
    slot_rules.close(work, key, tasks, {})
    if work.accepts(node):
        work.create(key)
    return Verdict.FINE
