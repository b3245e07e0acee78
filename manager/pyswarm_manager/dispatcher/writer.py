"""Reports on their way into the store: one commit for what all agents said in the last few milliseconds.

Statuses of tasks and observations of nodes are collected while a commit is under way; one commit follows another, so
what an observation means is decided on a view that holds everything before it. A batch is acknowledged to its session
only when it is committed. At `ROOM` waiting statuses, readers of the sessions' streams wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from pyswarm_common.errors import Exhausted
from pyswarm_common.model import Node, TaskState, TaskStatus
from pyswarm_manager.dispatcher.core.reports import accepted_status
from pyswarm_manager.store.changes import Change, SetNodeStatus, SetTaskStatus
from pyswarm_manager.store.store import Store

COLLECT_S = 0.002
COMMIT_LIMIT = 128
"""Changes in one commit: with texts of full length they stay below the size of a change set."""
ROOM = 8192
_RETRY_S = 0.05

Observation = Callable[[Node], SetNodeStatus | None]
Acknowledge = Callable[[], None]


class ReportWriter:
    """Collects reports and commits them. `run` belongs to the leader's term."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._statuses: dict[tuple[str, int], TaskStatus] = {}
        self._observations: dict[str, Observation] = {}
        self._notes: dict[str, str] = {}
        self._acknowledgements: list[Acknowledge] = []
        self._has_work = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def wait_room(self) -> None:
        """Return when more statuses may be added."""
        await self._has_room.wait()

    def add_statuses(self, node_id: str, updates: Sequence[tuple[str, TaskStatus]], acknowledge: Acknowledge) -> None:
        """Statuses as a node reports them, in their order. `acknowledge` is called once they are committed."""
        tasks = self._store.view.tasks
        for task_id, reported in updates:
            status = accepted_status(tasks.get(task_id), node_id, reported)
            if status is not None:
                self._add(task_id, status)
        self._acknowledgements.append(acknowledge)
        self._has_work.set()
        if len(self._statuses) >= ROOM:
            self._has_room.clear()

    def observe(self, node_id: str, observation: Observation) -> None:
        """What happened to a node; a later observation replaces one that waits."""
        self._observations[node_id] = observation
        self._has_work.set()

    def note(self, task_id: str, message: str) -> None:
        """What to say of a running task, unless its agent has news of it."""
        self._notes[task_id] = message
        self._has_work.set()

    async def run(self) -> None:
        """Commit batch after batch, until cancelled or no longer leading."""
        while True:
            await self._has_work.wait()
            await asyncio.sleep(COLLECT_S)
            self._has_work.clear()
            await self._commit_waiting()

    async def _commit_waiting(self) -> None:
        statuses, self._statuses = self._statuses, {}
        observations, self._observations = self._observations, {}
        acknowledgements, self._acknowledgements = self._acknowledgements, []
        self._has_room.set()
        nodes = self._store.view.nodes
        changes: list[Change] = [SetTaskStatus(task_id, status) for (task_id, _), status in statuses.items()]
        for node_id, observation in observations.items():
            node = nodes.get(node_id)
            change = None if node is None else observation(node)
            if change is not None:
                changes.append(change)
        changes += self._noted({task_id for task_id, _ in statuses})
        for start in range(0, len(changes), COMMIT_LIMIT):
            await self._commit(changes[start : start + COMMIT_LIMIT])
        for acknowledge in acknowledgements:
            acknowledge()

    def _noted(self, reported: set[str]) -> list[Change]:
        notes, self._notes = self._notes, {}
        tasks = [(self._store.view.tasks.get(task_id), message) for task_id, message in notes.items()]
        return [
            SetTaskStatus(task.id, replace(task.status, message=message))
            for task, message in tasks
            if task is not None and task.status.state is TaskState.RUNNING and task.id not in reported
        ]

    async def _commit(self, changes: Sequence[Change]) -> None:
        while True:
            try:
                await self._store.propose(changes)
            except Exhausted:  # too many proposals wait: these keep their place
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def _add(self, task_id: str, status: TaskStatus) -> None:
        """Only the latest status before RUNNING matters; RUNNING and the end are both kept, as each has its time."""
        phase = (status.state >= TaskState.RUNNING) + (status.state > TaskState.RUNNING)
        if phase > 0:
            self._statuses.pop((task_id, 0), None)
        self._statuses[task_id, phase] = status
