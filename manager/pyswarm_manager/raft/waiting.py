"""Who waits for what: proposals for their commit, reads for their index, and others for leadership to change.

Futures only; nothing here decides. Everything that waits is answered when leadership ends or the node stops.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from pyswarm_common.errors import PyswarmError, Unavailable, Unknown
from pyswarm_manager.raft.core.types import Entry
from pyswarm_manager.raft.ports import ApplyResult

LOST_IN_FLIGHT = "leadership was lost while the change was in flight: read again to see whether it was made"


class Proposals:
    """Proposals that are queued for the next batch, and those in the log that wait for their commit."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count, self._max_bytes = max_count, max_bytes
        self._queued: deque[tuple[bytes, asyncio.Future[ApplyResult]]] = deque()
        self._appended: dict[int, tuple[int, int, asyncio.Future[ApplyResult]]] = {}
        self._bytes = 0

    def has_room(self, size: int) -> bool:
        """Whether one more of this size may wait."""
        return len(self._queued) + len(self._appended) < self._max_count and self._bytes + size <= self._max_bytes

    @property
    def waiting(self) -> tuple[int, int]:
        """How many there are, and their bytes."""
        return len(self._queued) + len(self._appended), self._bytes

    def queue(self, data: bytes) -> asyncio.Future[ApplyResult]:
        """Wait for the next batch."""
        future: asyncio.Future[ApplyResult] = asyncio.get_running_loop().create_future()
        self._queued.append((data, future))
        self._bytes += len(data)
        return future

    def take_queued(self) -> list[tuple[bytes, asyncio.Future[ApplyResult]]]:
        """The batch to append now; whose caller has gone is left out, since nothing was promised to it."""
        batch = [item for item in self._queued if not item[1].done()]
        self._bytes -= sum(len(data) for data, future in self._queued if future.done())
        self._queued.clear()
        return batch

    def appended(self, index: int, term: int, size: int, future: asyncio.Future[ApplyResult]) -> None:
        """It is in the log at `index`."""
        self._appended[index] = (term, size, future)

    def applied(self, entry: Entry, result: object) -> None:
        """The entry at this index was applied: answer who proposed it."""
        waiting = self._appended.pop(entry.index, None)
        if waiting is None:
            return
        term, size, future = waiting
        self._bytes -= size
        if future.done():
            return
        if term == entry.term:
            future.set_result(ApplyResult(entry.index, result))
        else:
            future.set_exception(Unknown(LOST_IN_FLIGHT))

    def refuse(self, batch: list[tuple[bytes, asyncio.Future[ApplyResult]]], error: PyswarmError) -> None:
        """These were never appended."""
        for data, future in batch:
            self._bytes -= len(data)
            if not future.done():
                future.set_exception(error)

    def fail_all(self, queued_error: PyswarmError, committed: int = 0, in_flight: str = LOST_IN_FLIGHT) -> None:
        """Leadership ended, or nothing can be written: what was queued was not made; what was appended may yet be,
        unless it is `committed`, and then its result comes."""
        self.refuse(list(self._queued), queued_error)
        self._queued.clear()
        for index in [index for index in self._appended if index > committed]:
            _, size, future = self._appended.pop(index)
            self._bytes -= size
            if not future.done():
                future.set_exception(Unknown(in_flight))


class AppliedWaiters:
    """Who waits until an index is applied."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def wait(self, index: int) -> asyncio.Future[None]:
        """A future that is done once `index` is applied."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._heap, (index, self._count, future))
        return future

    def applied(self, index: int) -> None:
        """Everything up to `index` is applied."""
        while self._heap and self._heap[0][0] <= index:
            future = heapq.heappop(self._heap)[2]
            if not future.done():
                future.set_result(None)

    def fail_all(self, error: PyswarmError) -> None:
        """The node stops."""
        for _, _, future in self._heap:
            if not future.done():
                future.set_exception(error)
        self._heap.clear()


class Barrier:
    """One question to the leader, for every read that came before it was sent."""

    __slots__ = ("context", "future", "is_asked", "readers")

    def __init__(self, context: int) -> None:
        self.context = context
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.is_asked = False
        self.readers = 0


class Reads:
    """Reads that wait for their index. Those of one turn of the loop share a question: it leaves at the turn's end, so
    its answer is newer than every one of them."""

    def __init__(self, start_us: int) -> None:
        """Questions are numbered from the time of the start, so that none has the number of one which this member asked
        before it was restarted, and whose answer may still come."""
        self._waiting: dict[int, Barrier] = {}
        self._unsent: Barrier | None = None
        self._count = start_us

    def join(self) -> Barrier:
        """The question that has not left yet, or a new one, which the caller asks."""
        barrier = self._unsent
        if barrier is None:
            self._count += 1
            barrier = self._unsent = self._waiting[self._count] = Barrier(self._count)
        barrier.readers += 1
        return barrier

    def sent(self) -> None:
        """Questions leave now: whoever comes later asks anew."""
        self._unsent = None

    def leave(self, barrier: Barrier) -> None:
        """One reader has its answer, or gave up."""
        barrier.readers -= 1
        if not barrier.readers:
            self._waiting.pop(barrier.context, None)
            if self._unsent is barrier:
                self._unsent = None

    def confirmed(self, context: int, index: int) -> None:
        """The leader confirmed the read."""
        barrier = self._waiting.get(context)
        if barrier is not None and not barrier.future.done():
            barrier.future.set_result(index)

    def fail_all(self, error: Unavailable) -> None:
        """The node stops."""
        for barrier in self._waiting.values():
            if not barrier.future.done():
                barrier.future.set_exception(error)
        self._waiting.clear()
        self._unsent = None
