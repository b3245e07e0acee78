"""From an agent's batch of task statuses to the changes worth committing.

Decides which statuses are news: states only move forward, the last of several for one task counts, what is known
already is dropped. A status for a task of another node, or in a state that is not the agent's to set, is refused by
task id. Pure.

Who acts next: the dispatcher proposes the changes, and acknowledges the batch once they are committed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyswarm_common.model import Task, TaskState, TaskStatus
from pyswarm_manager.store.changes import SetTaskStatus
from pyswarm_manager.store.tables import Tables

_AGENT_STATES = frozenset(TaskState) - {
    TaskState.NEW,
    TaskState.PENDING,
    TaskState.ASSIGNED,
    TaskState.REMOVE,
    TaskState.ORPHANED,
}


@dataclass(frozen=True, slots=True)
class StatusBatch:
    changes: tuple[SetTaskStatus, ...]
    refused: tuple[str, ...]
    """Ids of tasks that are not this node's, or whose state is not for an agent to set."""


def status_changes(tables: Tables, node_id: str, updates: Iterable[tuple[str, TaskStatus]]) -> StatusBatch:
    """What to commit of (task id, status) pairs from one node, in the order they happened."""
    latest: dict[str, TaskStatus] = {}
    refused: dict[str, None] = {}
    for task_id, status in updates:
        task = tables.tasks.get(task_id)
        if task is None:
            continue
        if task.node_id != node_id or status.state not in _AGENT_STATES:
            refused[task_id] = None
        elif _is_news(task, latest.get(task_id, task.status), status):
            latest[task_id] = status
    return StatusBatch(tuple(SetTaskStatus(*item) for item in latest.items()), tuple(refused))


def _is_news(task: Task, known: TaskStatus, status: TaskStatus) -> bool:
    if known.state.is_terminal or task.status.state.is_terminal:
        return False
    return status.state >= known.state and status != known
