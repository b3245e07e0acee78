"""An imagined cluster: a copy of the tables on which the real planner and the real apply go on until nothing moves.

What lies between two plans is imagined as simply as it can be: every agent of a node that is up does at once what it is
told (what stops before what starts), nothing fails, every load balancer knows everything, and time passes only when the
planner waits for it. Ticks of cron services are not imagined, and a job's tasks run on, since nobody knows how long.

Never touches the tables of the store: the copy is its own. Bounded by its caller's patience and by `MAX_ROUNDS`. Who
acts next: `course` says what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyswarm_common.model import NodeState, ServiceMode, Task, TaskState, TaskStatus
from pyswarm_manager.planner.dirty import Dirty, everything
from pyswarm_manager.planner.draft import WakeKey
from pyswarm_manager.planner.foresight.course import Course
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.plan import State, plan
from pyswarm_manager.store.apply import Refusal, apply
from pyswarm_manager.store.changes import Change, ChangeSet, SetTaskStatus
from pyswarm_manager.store.tables import Tables

MAX_ROUNDS = 50_000
"""So many times the planner or the agents act; a rolling update of a task needs about three."""

IsOver = Callable[[], bool]
"""Whether the caller's patience is over."""


class Imagined:
    """Takes over the tables that it is given."""

    def __init__(self, tables: Tables, now: float) -> None:
        self.tables = tables
        self.now = self._began_at = now
        self.course = Course(now)
        self._ledger = Ledger.of(tables)
        self._dirty = Dirty()
        self._wakes: dict[WakeKey, float] = {}
        self._acting: dict[str, None] = {}
        """Ids of the tasks whose agents have something to do."""
        self._made = 0
        for task in tables.tasks.values():
            self._note(task)
        self._look()

    @property
    def elapsed_s(self) -> float:
        """How much time has passed."""
        return self.now - self._began_at

    def run(self, is_over: IsOver = lambda: False) -> bool:
        """Go on until nothing moves any more; whether it came to that."""
        for _ in range(MAX_ROUNDS):
            if is_over():
                return False
            if self._dirty:
                self._plan()
            elif self._acting:
                self._act()
            elif not self._sleep():
                return True
        return False

    def apply(self, changes: Iterable[Change]) -> None:
        """Raises what the store would refuse with."""
        result = apply(self.tables, self.tables.index + 1, ChangeSet(tuple(changes), self.now))
        if isinstance(result, Refusal):
            raise result.error
        self._ledger.observe_events(result.events)
        self._dirty.add_events(result.events)
        self.course.observe(result.events, self.now)
        for event in result.events:
            if isinstance(event.new, Task):
                self._note(event.new)

    def _look(self) -> None:
        """Learn what the planner waits for now. A cluster at rest is planned on from what changes, as its leader does:
        the order in which tasks are placed depends on it."""
        if self._planned(everything()):
            self._dirty = everything()

    def _plan(self) -> None:
        dirty, self._dirty = self._dirty, Dirty()
        changes = self._planned(dirty)
        if changes:
            self.apply(changes)

    def _planned(self, dirty: Dirty) -> tuple[Change, ...]:
        found = plan(State(self.tables, self._ledger), dirty, self.now, _middle, self._new_id)
        self._dirty.merge(found.unfinished)
        for key, at in found.wakes.items():
            if self._is_imagined(key):
                self._wakes[key] = min(at, self._wakes.get(key, at))
        return found.changes

    def _act(self) -> None:
        acting, self._acting = self._acting, {}
        changes = [change for task_id in acting if (change := self._next(task_id)) is not None]
        ends = [change for change in changes if change.status.state.is_terminal]
        if ends:
            self._acting.update((change.task_id, None) for change in changes if not change.status.state.is_terminal)
        if changes:
            self.apply(ends or changes)

    def _sleep(self) -> bool:
        """Until the planner wants to look again; whether it wants to at all."""
        if not self._wakes:
            return False
        self.now = max(self.now, min(self._wakes.values()))
        for key in [key for key, at in self._wakes.items() if at <= self.now]:
            del self._wakes[key]
            service_id, slot = key
            if slot is None:
                self._dirty.services[service_id] = None
            else:
                self._dirty.slots[service_id, slot] = None
        return True

    def _is_imagined(self, key: WakeKey) -> bool:
        service = self.tables.services.get(key[0])
        return service is not None and service.spec.mode is not ServiceMode.CRON

    def _note(self, task: Task) -> None:
        if self._wanted_state(task) is not None:
            self._acting[task.id] = None

    def _next(self, task_id: str) -> SetTaskStatus | None:
        task = self.tables.tasks.get(task_id)
        state = self._wanted_state(task) if task is not None else None
        if task is None or state is None:
            return None
        return SetTaskStatus(task_id, TaskStatus(timestamp=self.now, state=state, message=_WORDS[state]))

    def _wanted_state(self, task: Task) -> TaskState | None:
        """What a healthy agent reports next of a task; None if it has nothing to do."""
        state, desired = task.status.state, task.desired_state
        if not TaskState.ASSIGNED <= state <= TaskState.RUNNING:
            return None
        node = self.tables.nodes.get(task.node_id)
        if node is None or node.status.state is not NodeState.READY:
            return None
        if desired > TaskState.RUNNING:
            return TaskState.SHUTDOWN
        return TaskState(desired) if state < desired and desired in _WORDS else None

    def _new_id(self) -> str:
        self._made += 1
        return f"imagined{self._made}"


_WORDS = {TaskState.READY: "prepared", TaskState.RUNNING: "started", TaskState.SHUTDOWN: "shutdown"}


def _middle() -> float:
    """For the jitter of delays."""
    return 0.5
