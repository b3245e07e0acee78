"""The course of an imagined cluster: which tasks start, stop and move, in the order in which that begins.

Watches the events and remembers what was there before; tells the difference slot by slot, so that a task which was only
made and replaced again on the way is not in it. Decides nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import zip_longest

from pyswarm_common.model import NodeState, Task, TaskState
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import SlotKey, Tables, is_unplaced, slot_key


class StepKind(IntEnum):
    """With the numbers of `PlannedKind` on the wire."""

    START = 0
    STOP = 1
    MOVE = 2
    REPLACE = 3


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one task."""

    kind: StepKind
    old: Task | None
    new: Task | None
    at_s: float
    """When it begins, counted from the beginning of all."""

    @property
    def task(self) -> Task:
        """The one that comes, or else the one that goes."""
        task = self.new or self.old
        assert task is not None
        return task

    def identity(self) -> tuple[str, ...]:
        """Equal for equal steps of two courses, whose new tasks have other ids."""
        old, new = self.old, self.new
        where = (old.node_id if old is not None else "", new.node_id if new is not None else "")
        return (self.kind.name, self.task.name, *where, self.task.spec.container.image)


class Course:
    """What has happened since the beginning."""

    def __init__(self, began_at: float) -> None:
        self._began_at = began_at
        self._before: dict[str, Task | None] = {}
        """Every task that anything happened to, as it was before; None: it was not."""
        self._slots: dict[tuple[str, SlotKey], None] = {}
        self._began: dict[str, tuple[int, float]] = {}
        """In which place, and when, a task began to start or to stop."""

    def observe(self, events: Iterable[Event], now: float) -> None:
        for event in events:
            task = event.object
            if not isinstance(task, Task):
                continue
            old = event.old if isinstance(event.old, Task) else None
            new = event.new if isinstance(event.new, Task) else None
            self._before.setdefault(task.id, old)
            self._slots[task.service_id, slot_key(task)] = None
            if _holds(old) != _holds(new):
                self._began.setdefault(task.id, (len(self._began), now - self._began_at))

    def steps(self, tables: Tables) -> list[Step]:
        """Everything that is other than before, in the order in which it began."""
        touched: dict[tuple[str, SlotKey], list[Task]] = {}
        for task in self._before.values():
            if task is not None:
                touched.setdefault((task.service_id, slot_key(task)), []).append(task)
        found: list[tuple[int, Step]] = []
        for service_id, key in self._slots:
            now = tables.slots.get(service_id, {}).get(key, ())
            then = [*touched.get((service_id, key), ()), *(task for task in now if task.id not in self._before)]
            found += self._steps_of(tables, then, now)
        return [step for _, step in sorted(found, key=lambda pair: pair[0])]

    def waiting(self, tables: Tables, targets: Container[str]) -> Iterator[Task]:
        """Tasks that wait for a node and did not before; of the target services all that wait."""
        for task in tables.unplaced.values():
            before = self._before.get(task.id, task)
            if before is None or not is_unplaced(before) or task.service_id in targets:
                yield task

    def _steps_of(self, tables: Tables, then: list[Task], now: tuple[Task, ...]) -> Iterator[tuple[int, Step]]:
        """Of one slot. What is lost with its node while its successor waits is no step: nothing is stopped."""
        held = {task.id: task for task in then if _holds(task)}
        holding = {task.id: task for task in now if _holds(task)}
        went = [task for task in held.values() if task.id not in holding]
        came = [task for task in holding.values() if task.id not in held]
        waits = any(is_unplaced(task) for task in now)
        for old, new in zip_longest(went, came):
            if new is None and waits and _is_down(tables, old):
                continue
            began = [self._began[task.id] for task in (old, new) if task is not None and task.id in self._began]
            place, at_s = min(began, default=(len(self._began), 0.0))
            yield place, Step(_kind(old, new), old, new, at_s)


def outcome_of(steps: Iterable[Step], waiting: Iterable[Task]) -> str:
    """The same for courses in which the same happens, whenever and in whatever order it does."""
    lines = sorted("\0".join(step.identity()) for step in steps)
    waits = sorted(task.name for task in waiting)
    return hashlib.sha256("\n".join([*lines, "", *waits]).encode()).hexdigest()


def _kind(old: Task | None, new: Task | None) -> StepKind:
    if old is None:
        return StepKind.START
    if new is None:
        return StepKind.STOP
    return StepKind.REPLACE if old.node_id == new.node_id else StepKind.MOVE


def _holds(task: Task | None) -> bool:
    """Whether the task has a node and is meant to run there."""
    if task is None or task.desired_state > TaskState.RUNNING:
        return False
    return TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING


def _is_down(tables: Tables, task: Task | None) -> bool:
    node = tables.nodes.get(task.node_id) if task is not None else None
    return node is None or node.status.state is NodeState.DOWN
