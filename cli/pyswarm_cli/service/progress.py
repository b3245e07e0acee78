"""How far a service is on its way to its spec, from the objects that the watch delivers.

Pure: `Progress` holds the service and its tasks; `look(now)` says what to show and whether it is over. The shell
(`service.follow`) feeds it and prints. A service has converged when every wanted task has run for the monitor time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from pyswarm_common.model import (
    DEFAULT_UPDATE_MONITOR_S,
    Service,
    ServiceMode,
    Task,
    TaskState,
    UpdateState,
    UpdateStatus,
)
from pyswarm_common.model.sizes import wanted_replicas

MAX_LINES = 20
_STEPS = {
    TaskState.NEW: 1,
    TaskState.PENDING: 2,
    TaskState.ASSIGNED: 4,
    TaskState.ACCEPTED: 5,
    TaskState.PREPARING: 6,
    TaskState.READY: 7,
    TaskState.STARTING: 8,
    TaskState.RUNNING: 9,
}
LAST_STEP = 9


class Outcome(Enum):
    """Whether it is over."""

    GOING = "going"
    CONVERGED = "converged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TaskLine:
    """One task: "1/3", "preparing", 6 steps of 9."""

    label: str
    text: str
    step: int


@dataclass(frozen=True, slots=True)
class Picture:
    """What there is to show now."""

    overall: str
    lines: tuple[TaskLine, ...]
    verify: str
    outcome: Outcome
    message: str = ""
    # Look again at this time even if nothing happens; None: nothing is due.
    wake_at: float | None = None


@dataclass(slots=True)
class Progress:
    """The state of one wait."""

    service: Service
    # A global service runs on every node that may take tasks: how many that are.
    eligible_nodes: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    removed: bool = False
    # Set by whoever asked for a rollback: then its completion is what was wanted.
    is_rollback: bool = False
    # How an update ended before this wait began: no news, where what was asked for changed nothing.
    earlier: UpdateStatus | None = None
    _complete_since: float | None = None
    _was_updating: bool = False
    _verify: str = ""

    def look(self, now: float) -> Picture:
        """What to show at this time."""
        slots = self._slots()
        total = self._total(slots)
        running = sum(1 for task in slots.values() if self._counts(task))
        lines = tuple(self._line(slots, index, total) for index in range(1, min(total, MAX_LINES) + 1))
        lines = tuple(_lines_of_nodes(slots)) if self._is_global else lines
        state = self._update_state()
        self._was_updating = self._was_updating or state in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
        overall = f"overall progress: {running} out of {total} tasks"
        if state.is_rollback:
            overall = f"overall progress: rolling back update: {running} out of {total} tasks"
        picture = Picture(overall, lines if total <= MAX_LINES else (), "", Outcome.GOING)
        if self.service.spec.stopped:
            return self._stopping(picture)
        return self._judged(picture, running >= total, state, now)

    def _stopping(self, picture: Picture) -> Picture:
        """A service that is to stop has when its last task has ended."""
        if self.removed:
            return _with(picture, "", Outcome.FAILED, self._failure(UpdateState.NONE))
        left = sum(TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING for task in self.tasks.values())
        word = "task" if left == 1 else "tasks"
        overall = replace(picture, overall=f"overall progress: {left} {word} left to stop", lines=())
        if left:
            return overall
        return _with(overall, f"verify: Service {self.service.spec.name} stopped", Outcome.CONVERGED)

    def _judged(self, picture: Picture, complete: bool, state: UpdateState, now: float) -> Picture:
        failure = self._failure(state)
        if failure:
            return _with(picture, "", Outcome.FAILED, failure)
        if not complete or state in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED):
            lost = self._complete_since is not None and not complete
            self._complete_since = None
            self._verify = "verify: Detected task failure" if lost else ""
            return _with(picture, self._verify, Outcome.GOING)
        self._complete_since = now if self._complete_since is None else self._complete_since
        end = self._complete_since + self._monitor_s()
        # An update watched each of its tasks for the monitor time already.
        if now >= end or (self._was_updating and state is UpdateState.COMPLETED):
            return _with(picture, f"verify: Service {self.service.spec.name} converged", Outcome.CONVERGED)
        verify = f"verify: Waiting {max(1, round(end - now))} seconds to verify that tasks are stable..."
        return _with(picture, verify, Outcome.GOING, wake_at=min(end, now + 1.0))

    def _failure(self, state: UpdateState) -> str:
        if self.removed:
            return f"service {self.service.spec.name} was removed"
        status = self.service.update_status
        message = status.message if status is not None else ""
        match state:
            case UpdateState.PAUSED:
                return f"service update paused: {message}"
            case UpdateState.ROLLBACK_PAUSED:
                return f"service rollback paused: {message}"
            case UpdateState.ROLLBACK_COMPLETED if not self.is_rollback:
                return f"service rolled back: {message}"
        return ""

    def _update_state(self) -> UpdateState:
        status = self.service.update_status
        return UpdateState.NONE if status is None or status == self.earlier else status.state

    def _monitor_s(self) -> float:
        update = self.service.spec.update
        return DEFAULT_UPDATE_MONITOR_S if update is None or update.monitor_s is None else update.monitor_s

    @property
    def _is_global(self) -> bool:
        return self.service.spec.mode is ServiceMode.GLOBAL

    def _total(self, slots: dict[str, Task]) -> int:
        if self._is_global:
            return len(slots) or min(1, self.eligible_nodes)
        return wanted_replicas(self.service)

    def _slots(self) -> dict[str, Task]:
        """The task of each slot (or node) that is meant to run: the newest one."""
        out: dict[str, Task] = {}
        for task in sorted(self.tasks.values(), key=lambda task: (task.meta.created_at, task.spec_version, task.id)):
            if task.desired_state <= TaskState.RUNNING:
                out[str(task.slot or task.node_id)] = task
        return out

    def _counts(self, task: Task) -> bool:
        """Whether it runs, and during an update: runs the new spec."""
        if task.status.state is not TaskState.RUNNING or task.desired_state is not TaskState.RUNNING:
            return False
        updating = self._update_state() in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
        return not updating or task.spec.container == self.service.spec.task.container

    def _line(self, slots: dict[str, Task], index: int, total: int) -> TaskLine:
        task = slots.get(str(index))
        width = len(str(total))
        label = f"{index:>{width}}/{total}"
        return TaskLine(label, "", 0) if task is None else task_line(label, task)


def _lines_of_nodes(slots: dict[str, Task]) -> list[TaskLine]:
    return [task_line(node[:12], task) for node, task in sorted(slots.items())][:MAX_LINES]


def task_line(label: str, task: Task) -> TaskLine:
    """How far one task is, or why it is no further."""
    state = task.status.state
    if state.is_terminal or (state <= TaskState.PENDING and (task.status.err or task.status.message)):
        return TaskLine(label, task.status.err or task.status.message or state.name.lower(), 0)
    return TaskLine(label, state.name.lower(), _STEPS.get(state, 0))


def _with(picture: Picture, verify: str, outcome: Outcome, message: str = "", wake_at: float | None = None) -> Picture:
    return Picture(picture.overall, picture.lines, verify, outcome, message, wake_at)
