"""The outbox of task statuses: written to disk, sent in batches, sent again until acknowledged.

Within one batch only a task's latest status is sent: states only move forward, so nothing is lost by skipping one that
is already past. A status leaves the outbox when the batch that carried it, or a later one, is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import to_proto
from pyswarm_common.model import TaskStatus

from .store import AgentStore, Operation, acknowledge_status, drop_status, put_status

_MAX_BATCH = 1_000


class StatusOutbox:
    """Bounded by the number of tasks on the node: one entry each."""

    def __init__(self, store: AgentStore) -> None:
        self._store = store
        self._latest: dict[str, TaskStatus] = {}
        self._unsent: dict[str, None] = {}  # in the order they happened
        self._in_flight: deque[tuple[int, dict[str, TaskStatus]]] = deque()
        self._sequence = 0
        self._unwritten: list[tuple[str, TaskStatus | None]] = []  # None: forget it
        self._written = asyncio.Event()
        self._changed = asyncio.Event()

    def restore(self, statuses: Mapping[str, TaskStatus], unacknowledged: Iterable[str]) -> None:
        for task_id in unacknowledged:
            self._latest[task_id] = statuses[task_id]
            self._unsent[task_id] = None
        self._changed.set()

    def add(self, task_id: str, status: TaskStatus) -> None:
        """It is sent once it is on disk."""
        self._unwritten.append((task_id, status))
        self._written.set()

    async def run(self) -> None:
        """Write what was added, all of it in one transaction, then let it be sent."""
        while True:
            await self._written.wait()
            self._written.clear()
            added, self._unwritten = self._unwritten, []
            await self._store.write(_operation(task_id, status) for task_id, status in added)
            for task_id, status in added:
                self._unsent.pop(task_id, None)
                self._latest.pop(task_id, None)
                if status is not None:
                    self._latest[task_id] = status
                    self._unsent[task_id] = None
            self._changed.set()

    def forget(self, task_id: str) -> None:
        """The task is no longer assigned: nobody asks how it ended."""
        self._unwritten.append((task_id, None))
        self._written.set()

    def begin_session(self) -> None:
        """Nothing that was sent in the last session counts as received."""
        lost = {task_id for _, batch in self._in_flight for task_id in batch}
        self._in_flight.clear()
        self._sequence = 0
        self._unsent = dict.fromkeys([*sorted(lost & self._latest.keys()), *self._unsent])
        self._changed.set()

    async def next_batch(self) -> pb.TaskStatusBatch:
        """Waits until there is something to send."""
        while not self._unsent:
            self._changed.clear()
            await self._changed.wait()
        batch = {}
        for task_id in list(self._unsent)[:_MAX_BATCH]:
            batch[task_id] = self._latest[task_id]
            del self._unsent[task_id]
        self._sequence += 1
        self._in_flight.append((self._sequence, batch))
        updates = [pb.TaskStatusUpdate(task_id=key, status=to_proto(status)) for key, status in batch.items()]
        return pb.TaskStatusBatch(sequence=self._sequence, updates=updates)

    async def acknowledged(self, sequence: int) -> None:
        operations: list[Operation] = []
        while self._in_flight and self._in_flight[0][0] <= sequence:
            _, batch = self._in_flight.popleft()
            for task_id, status in batch.items():
                if self._latest.get(task_id) == status and task_id not in self._unsent:
                    del self._latest[task_id]
                    operations.append(acknowledge_status(task_id, status))
        if operations:
            await self._store.write(operations)


def _operation(task_id: str, status: TaskStatus | None) -> Operation:
    return put_status(task_id, status) if status is not None else drop_status(task_id)
