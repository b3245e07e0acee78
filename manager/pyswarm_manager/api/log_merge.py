"""Many tasks' logs as one stream: merged by time, or followed as they come.

Each stream is read by a task of its own into a bounded queue; the object that owns them cancels them in `aclose`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Any

from pyswarm.v1 import logs_pb2
from pyswarm_common.errors import Exhausted
from pyswarm_manager.api.log_stream import Agents, LogOptions, LogSource, read_log, time_of

MAX_FOLLOWED = 500
AHEAD = 64
FOLLOW_AHEAD = 1024
RETRY_S = 1.0

_Line = logs_pb2.LogMessage


class MergedLogs:
    """Finished logs, the earliest line first. A stream's own order is kept even where its clock went back."""

    def __init__(self) -> None:
        self._queues: list[asyncio.Queue[_Line | None]] = []
        self._readers: list[asyncio.Task[None]] = []

    def add(self, lines: AsyncIterator[_Line]) -> None:
        queue: asyncio.Queue[_Line | None] = asyncio.Queue(AHEAD)
        self._queues.append(queue)
        self._readers.append(asyncio.get_running_loop().create_task(_pump(lines, queue)))

    async def lines(self) -> AsyncIterator[_Line]:
        heads: list[tuple[float, int, _Line]] = []
        for number, queue in enumerate(self._queues):
            await self._next(heads, number, queue, 0.0)
        heapq.heapify(heads)
        while heads:
            time, number, line = heapq.heappop(heads)
            yield line
            await self._next(heads, number, self._queues[number], time)

    async def _next(
        self, heads: list[tuple[float, int, _Line]], number: int, queue: asyncio.Queue[_Line | None], not_before: float
    ) -> None:
        line = await queue.get()
        if line is None:
            self._readers[number].result()  # a bug in a reader is not the end of a log
            return
        heapq.heappush(heads, (max(time_of(line), not_before), number, line))

    async def aclose(self) -> None:
        await _cancelled(self._readers)


async def _pump(lines: AsyncIterator[_Line], queue: asyncio.Queue[_Line | None]) -> None:
    try:
        async for line in lines:
            await queue.put(line)
    except Exception:  # a bug: the end of the stream lets the merge find it
        await queue.put(None)
        raise
    await queue.put(None)


class FollowedLogs:
    """Logs of running tasks, in order of arrival. A stream that breaks is taken up again where it was."""

    def __init__(self, agents: Agents, options: LogOptions) -> None:
        self._agents, self._options = agents, options
        self._queue: asyncio.Queue[_Line] = asyncio.Queue(FOLLOW_AHEAD)
        self._sources: dict[str, LogSource] = {}
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        """Whether a stream is open, or lines wait to be given."""
        return bool(self._readers) or not self._queue.empty()

    def add(self, sources: Iterable[LogSource]) -> None:
        """Follow those that are new, and know the present state of the others."""
        for source in sources:
            is_new = source.task.id not in self._sources
            self._sources[source.task.id] = source
            if not is_new:
                continue
            if len(self._readers) >= MAX_FOLLOWED:
                raise Exhausted(f"more than {MAX_FOLLOWED} tasks at once: follow single tasks instead")
            reader = asyncio.get_running_loop().create_task(self._read(source.task.id))
            self._readers[source.task.id] = reader

    async def lines_until(self, changed: asyncio.Event) -> AsyncIterator[_Line]:
        """Lines as they arrive; ends when `changed` is set, or a stream ended."""
        wakers = [asyncio.ensure_future(event.wait()) for event in (changed, self._ended)]
        try:
            while not any(waker.done() for waker in wakers):
                line = asyncio.ensure_future(self._queue.get())
                try:
                    await asyncio.wait([line, *wakers], return_when=asyncio.FIRST_COMPLETED)
                    if line.done():
                        yield line.result()
                finally:
                    line.cancel()
                while not self._queue.empty():
                    yield self._queue.get_nowait()
        finally:
            await _cancelled(wakers)
            self._reap()

    def _reap(self) -> None:
        self._ended.clear()
        for task_id in [task_id for task_id, reader in self._readers.items() if reader.done()]:
            self._readers.pop(task_id).result()

    async def _read(self, task_id: str) -> None:
        options, warning = self._options, b""
        try:
            while True:
                broke = False
                async for line in read_log(self._sources[task_id], self._agents, options):
                    broke = line.stream == _Line.STREAM_WARNING
                    if not broke:
                        # What was given is not asked for again: a broken stream goes on after its last line.
                        options, warning = replace(options, since=time_of(line) + 1e-6, tail=None), b""
                    elif line.data == warning:
                        continue  # said already
                    else:
                        warning = line.data
                    await self._queue.put(line)
                if not broke or self._sources[task_id].task.status.state.is_terminal:
                    return
                await asyncio.sleep(RETRY_S)
        finally:
            self._ended.set()

    async def aclose(self) -> None:
        await _cancelled(list(self._readers.values()))


async def _cancelled(futures: Sequence[asyncio.Future[Any]]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
