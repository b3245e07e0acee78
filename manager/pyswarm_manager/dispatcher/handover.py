"""What the planner may ask of the dispatcher: whether everybody was told of a task, and to hear when that is so.

An update goes on only when the successor is in every load balancer that needs it (`core.programmed`). The planner asks,
is told "not yet", and looks at the slot again when it hears of the task. Lives as long as the manager; between terms
nobody was told of anything. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyswarm_common.model import Task
from pyswarm_manager.dispatcher.core.tables import NetworkTables

Listener = Callable[[Iterable[Task]], None]


class Handover:
    """Made by the dispatcher; `begin` and `end` are its terms."""

    def __init__(self) -> None:
        self._tables: NetworkTables | None = None
        self._early: dict[str, Task] = {}
        """Watched before the term's tables were made."""
        self._listeners: dict[int, Listener] = {}

    def begin(self, tables: NetworkTables) -> None:
        """A term begins. What was asked for before is looked at again."""
        self._tables = tables
        early, self._early = list(self._early.values()), {}
        self.tell(early)

    def end(self) -> None:
        """The term is over: what it knew is not known any more."""
        self._tables = None
        self._early.clear()

    def is_told(self, task: Task) -> bool:
        """Whether every node that may send the task connections knows whether it is a backend, in its kernel."""
        return self._tables is not None and self._tables.is_told(task)

    def watch(self, task: Task) -> None:
        """Tell the listeners of the task once `is_told`."""
        if self._tables is None:
            self._early[task.id] = task
        elif self._tables.is_told(task):
            self.tell((task,))
        else:
            self._tables.watch(task)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns what ends it."""
        key = max(self._listeners, default=0) + 1
        self._listeners[key] = listener
        return lambda: self._listeners.pop(key, None) and None

    def tell(self, tasks: Iterable[Task]) -> None:
        """Everybody was told of these tasks."""
        for listener in tuple(self._listeners.values()):
            listener(tasks)
