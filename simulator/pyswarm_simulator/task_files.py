"""Secrets and configs as a host's agent puts them: remembered in place of a file system in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from pyswarm_common.model import Task
from pyswarm_worker.core.materials import Materials, NodeFacts, needed_ids
from pyswarm_worker.task_files import Prepared, TaskFiles


class SimTaskFiles(TaskFiles):
    """`placed` is the host's: what was put outlives the agent's process, and ends with the host's power."""

    def __init__(self, placed: dict[str, tuple[str, ...]], directory: Path, node: Callable[[], NodeFacts]) -> None:
        """`placed`: ids of versions, by task."""
        super().__init__(directory, node)
        self._placed = placed

    async def place(self, task: Task, materials: Materials) -> Prepared:
        self._placed[task.id] = needed_ids(task)
        return Prepared(task)

    async def remove(self, task_id: str) -> None:
        self._placed.pop(task_id, None)

    async def sweep(self, known: Collection[str]) -> None:
        for task_id in [task_id for task_id in self._placed if task_id not in known]:
            del self._placed[task_id]
