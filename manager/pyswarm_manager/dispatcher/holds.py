"""What holds handovers up: says so, and ends what nobody should wait for (`core.patience`).

A task that is to stop is held back until every node knows that it is no backend any more. Here whoever wonders why
finds the nodes' names: in the task's status (`task why`) and in the log. Nodes that program no tables are excused, and
a drained node's tasks are held back no longer once its deadline is over.

One per term; forgets everything with it, so a new leader is as patient as the last one was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pyswarm_common.model import Node, TaskState
from pyswarm_manager.dispatcher.core.patience import LOOKS_LIMIT, DrainDeadlines, Patience
from pyswarm_manager.dispatcher.core.tables import NetworkTables
from pyswarm_manager.dispatcher.writer import ReportWriter
from pyswarm_manager.store.tables import Tables

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
DEADLINES_EVERY_S = 0.5
NAMED = 5
"""How many tasks, and how many nodes of each, are named at a time."""
TASKS_TOLD = 100
"""Of how many tasks the status says at one look whom they wait for."""


class Holds:
    """Use `run` in the term's group."""

    def __init__(
        self,
        view: Tables,
        tables: NetworkTables,
        writer: ReportWriter,
        mark: Callable[[str, str], None],
        on_told: Callable[[], None],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`mark(node_id, task_id)`: that session is to look at the task again. `on_told`: look who waits no more."""
        self._view, self._tables, self._writer = view, tables, writer
        self._mark, self._on_told = mark, on_told
        self._clock, self._monotonic = clock, monotonic
        self._patience, self._deadlines = Patience(), DrainDeadlines()
        self._waited: frozenset[str] = frozenset()
        for node in view.nodes.values():
            self.node_changed(node.id, node)

    def node_changed(self, node_id: str, node: Node | None) -> None:
        """Called inside apply."""
        self._deadlines.observe(node_id, node, self._clock(), self._monotonic())
        if not self._deadlines.is_over(node_id):
            self._tables.unheld.discard(node_id)

    async def run(self) -> None:
        """For ever."""
        looked = self._monotonic()
        while True:
            await asyncio.sleep(min(DEADLINES_EVERY_S, LOOK_EVERY_S))
            self.end_overdue()
            if self._monotonic() - looked >= LOOK_EVERY_S:
                looked = self._monotonic()
                self.look()

    def end_overdue(self) -> None:
        """The tasks of nodes whose drain is past its deadline stop without waiting for anybody."""
        for node_id in self._deadlines.take_over(self._monotonic()):
            self._tables.unheld.add(node_id)
            for task in self._view.tasks_on(node_id):
                self._mark(node_id, task.id)

    def look(self) -> None:
        """Say who waits for whom, and excuse who was waited for in vain."""
        programmed = self._tables.programmed
        waiting = programmed.waiting()
        self._tell(sorted(self._waited & waiting))
        self._waited = waiting
        for node_id in self._patience.look(programmed.holding_up(), programmed.take_heard()):
            _log.warning(
                "node %s is up, but has programmed none of its tables in %d s: nobody waits for it until it does",
                node_id,
                LOOKS_LIMIT * LOOK_EVERY_S,
            )
            programmed.excuse(node_id)
        self._on_told()

    def _tell(self, task_ids: list[str]) -> None:
        for number, task_id in enumerate(task_ids[:TASKS_TOLD]):
            task = self._view.tasks.get(task_id)
            nodes = [] if task is None else self._tables.waits_for(task)
            if task is None or not nodes:
                continue
            if number < NAMED:
                _log.warning("task %s (%s) waits for the load balancers of nodes %s", task.id, task.name, nodes[:NAMED])
            if task.desired_state > TaskState.RUNNING and task.status.state is TaskState.RUNNING:
                self._writer.note(task.id, f"waits until {self._named(nodes)} that it is no backend any more")

    def _named(self, node_ids: list[str]) -> str:
        nodes = [self._view.nodes.get(node_id) for node_id in node_ids[:NAMED]]
        names = ", ".join((node.description.hostname or node.id) if node is not None else "?" for node in nodes)
        more = f" and {len(node_ids) - NAMED} more" if len(node_ids) > NAMED else ""
        return f"node {names} knows" if len(node_ids) == 1 else f"nodes {names}{more} know"
