"""Drain: in which order, and how many at a time, the tasks of drained nodes move elsewhere.

Decides when the slot of a running task on a drained node may be opened, which is when its successor is made:
- at most as many slots at a time as the service's updates allow (`parallelism`, and `delay` between them), those that
  an update has open counted in;
- with order stop-first never the last healthy replica while another one is still coming;
- a task that does not run yet serves nobody, and moves at once.
A task for which there is no room elsewhere stays, until the deadline that the user gave the node; after it, whatever
still runs there is stopped without waiting for its successor.

Never decides when the old task stops: that is `slots`, as for every successor. Remembers nothing: everything is read
from the tasks on drained nodes, so that the cost grows with these nodes and not with the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyswarm_common.model import Node, Task, TaskState
from pyswarm_manager.store.tables import SlotKey, slot_key

if TYPE_CHECKING:
    from pyswarm_manager.planner.orchestrate.work import Work

_RUNNING = TaskState.RUNNING
_NO_LIMIT = 1 << 30


def deadline(node: Node) -> float:
    """When waiting for successors ends; zero: never."""
    if not node.spec.drain_deadline_s:
        return 0.0
    return node.drain_started_at + node.spec.drain_deadline_s


class Drain:
    """What one service has on drained nodes, during one plan."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._room: int | None = None
        self.update_open: int | None = None
        """Slots that a running update has open, those that a drain opened among them."""
        self.opened = 0
        """Slots that this plan opened."""

    def is_overdue(self, node: Node) -> bool:
        """Whether the node's deadline is over."""
        at = deadline(node)
        return bool(at) and not self._work.is_ahead(at, node.spec.drain_deadline_s)

    def keys(self) -> list[SlotKey]:
        """The service's slots with a wanted task on a drained node: when one has moved, the next may."""
        return list(dict.fromkeys(slot_key(task) for task in self._tasks() if task.desired_state <= _RUNNING))

    def may_open(self) -> bool:
        """Whether a successor for a slot's running task may be made now; counts it if so."""
        if self._room is None:
            self._room = self._count_room()
        if self._room <= 0:
            return False
        self._room -= 1
        self.opened += 1
        return True

    def wake_at_deadline(self, key: SlotKey, leaving: list[Task]) -> None:
        """Look at the slot again when its tasks' nodes wait no longer."""
        for task in leaving:
            node = self._work.node(task)
            if node is not None and deadline(node):
                self._work.draft.wake(self._work.service.id, key, deadline(node))

    def _tasks(self) -> list[Task]:
        work = self._work
        if work.is_global:
            return []
        tables = work.draft.tables
        return [
            task
            for node_id in work.draft.ledger.draining
            for task in tables.tasks_on(node_id)
            if task.service_id == work.service.id
        ]

    def _count_room(self) -> int:
        work = self._work
        slots = work.draft.tables.slots.get(work.service.id, {})
        touched = dict.fromkeys(slot_key(task) for task in self._tasks())
        open_keys = {key: None for key in touched if self._is_open(key, slots.get(key, ()))}
        open_count = len(open_keys) if self.update_open is None else max(self.update_open, len(open_keys))
        room = (work.config.parallelism or _NO_LIMIT) - open_count
        if work.starts_first or room <= 0:
            return room
        return min(room, self._spare(open_keys, min(room, len(touched))))

    def _is_open(self, key: SlotKey, tasks: tuple[Task, ...]) -> bool:
        """Whether the slot is between a task on a drained node and a successor that runs, and has for the delay."""
        work = self._work
        wanted = [task for task in tasks if task.desired_state <= _RUNNING and not self._is_on_drained(task)]
        for task in wanted:
            if task.status.state > _RUNNING:
                continue  # a successor that ended: the slot would wait for itself
            if task.status.state is not _RUNNING:
                return True
            free_at = task.running_at + work.config.delay_s
            if len(tasks) > 1 and work.is_ahead(free_at, work.config.delay_s):
                work.draft.wake(work.service.id, key, free_at)
                return True
        return False

    def _is_on_drained(self, task: Task) -> bool:
        return task.node_id in self._work.draft.ledger.draining

    def _spare(self, open_keys: dict[SlotKey, None], most: int) -> int:
        """How many running replicas can be done without. Looks at no more of the service than it takes to know."""
        running = 0
        is_another_coming = bool(open_keys)
        for task in self._work.draft.tables.service_tasks(self._work.service.id):
            if task.desired_state > _RUNNING or slot_key(task) in open_keys:
                continue
            running += task.status.state is _RUNNING
            is_another_coming = is_another_coming or TaskState.ASSIGNED <= task.status.state < _RUNNING
            if running > most:
                return most
        if running == 1 and not is_another_coming:
            return 1
        return running - 1
