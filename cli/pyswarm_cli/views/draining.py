"""How far a drain is: the tasks that are still on the node, and what keeps them there. Pure.

`Draining` holds the node and its tasks as the watch tells them; `look(now)` says what to show and whether it is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pyswarm_cli.service.progress import MAX_LINES, Outcome, Picture, TaskLine
from pyswarm_common.model import Availability, Node, NodeState, Task, TaskState

_WAITS_STEP, _STOPS_STEP = 2, 6


@dataclass(slots=True)
class Draining:
    """The state of one wait."""

    node: Node
    tasks: dict[str, Task] = field(default_factory=dict)
    is_removed: bool = False
    reasons: dict[str, str] = field(default_factory=dict)
    """By the name of a task: why its successor does not run."""
    total: int = 0

    def read(self, node: Node, tasks: Iterable[Task]) -> None:
        """Everything anew."""
        self.node = node
        self.tasks = {task.id: task for task in tasks if not task.status.state.is_terminal}
        self.total = max(self.total, len(self.tasks))

    def take(self, task: Task, *, is_removed: bool) -> None:
        """One task as it is now."""
        if is_removed or task.status.state.is_terminal:
            self.tasks.pop(task.id, None)
        elif task.node_id == self.node.id:
            self.tasks[task.id] = task
            self.total = max(self.total, len(self.tasks))

    def left(self) -> list[Task]:
        """What still has to leave. Of a node that is down nobody hears the end: what is not wanted there has left."""
        is_down = self.node.status.state is NodeState.DOWN
        left = (task for task in self.tasks.values() if not (is_down and task.desired_state > TaskState.RUNNING))
        return sorted(left, key=lambda task: (task.service_name, task.slot, task.id))

    def look(self, now: float) -> Picture:
        """What there is to show."""
        left, name = self.left(), self.node.description.hostname or self.node.id
        moved = self.total - len(left)
        overall = f"overall progress: {moved} out of {self.total} tasks have left {name}"
        lines = tuple(self._line(task) for task in left[:MAX_LINES])
        if self.is_removed:
            return Picture(overall, (), "", Outcome.CONVERGED)
        if not left:
            return Picture(overall, (), f"drain: {name} is empty", Outcome.CONVERGED)
        if self.node.spec.availability is not Availability.DRAIN:
            message = f"{name} is drained no more: {count(len(left))} there"
            return Picture(overall, lines, "", Outcome.FAILED, message)
        return Picture(overall, lines, self._deadline(now), Outcome.GOING)

    def _line(self, task: Task) -> TaskLine:
        if task.desired_state > TaskState.RUNNING:
            return TaskLine(task.name, "stopping", _STOPS_STEP)
        reason = self.reasons.get(task.name, "")
        return TaskLine(
            task.name, f"waits for its successor: {reason}" if reason else "waits for its turn", _WAITS_STEP
        )

    def _deadline(self, now: float) -> str:
        seconds = self.node.spec.drain_deadline_s
        if not seconds:
            return ""
        left_s = max(0, round(self.node.drain_started_at + seconds - now))
        return f"drain: what is left is stopped in {left_s} seconds"


def count(tasks: int) -> str:
    """ "1 task stays", "3 tasks stay"."""
    return "1 task stays" if tasks == 1 else f"{tasks} tasks stay"


def reasons(tasks: Iterable[Task]) -> dict[str, str]:
    """Why successors do not run yet, by the name that they share with who waits for them."""
    waiting = {}
    for task in tasks:
        is_wanted = task.desired_state <= TaskState.RUNNING
        if is_wanted and task.status.state < TaskState.ASSIGNED and task.status.message:
            waiting[task.name] = task.status.message
        elif is_wanted and TaskState.ASSIGNED <= task.status.state < TaskState.RUNNING:
            waiting[task.name] = f"it is {task.status.state.name.lower()}"
    return waiting
