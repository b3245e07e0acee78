"""Logs of a service or a task, from any manager, which fetches them from the agents.

Without follow, the streams of all tasks, also of those that have ended, are merged by time; with follow, lines come as
they arrive, and new tasks of the service join as they appear. What is missing (a node that is away, more tasks than are
read at once) is said in the stream, never silently left out.
Memory is bounded: each stream is read only as far ahead as its queue.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import Protocol

from pyswarm.v1 import logs_pb2, logs_pb2_grpc
from pyswarm_common.codec import timestamp
from pyswarm_common.errors import Exhausted, NotFound
from pyswarm_common.model import Service, Task, TaskState
from pyswarm_common.rpc import open_channel
from pyswarm_manager.api.caller import Context, caller_of, require_manager
from pyswarm_manager.api.log_merge import FollowedLogs, MergedLogs
from pyswarm_manager.api.log_stream import Agents, LogOptions, LogSource, OpenChannel, read_log
from pyswarm_manager.ports import IdentityProvider
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.lookup import find_service, find_task
from pyswarm_manager.store.tables import Tables

MAX_READERS = 64
"""Requests at once on one manager."""
MAX_TASKS = 500
"""Streams of one request."""
MAX_TASKS_PER_NODE = 128
"""Of those: half of what an agent serves at once."""


class LogsStore(Protocol):
    """What logs need of the store."""

    @property
    def view(self) -> Tables: ...
    def subscribe(self, callback: Callable[[int, tuple[Event, ...]], None]) -> Callable[[], None]: ...


class LogsServicer(logs_pb2_grpc.LogsServicer):
    """Serves Logs."""

    def __init__(self, store: LogsStore, identity: IdentityProvider, open_agent: OpenChannel = open_channel) -> None:
        self._store, self._identity, self._open = store, identity, open_agent
        self._readers = 0

    async def ReadLogs(self, request: logs_pb2.ReadLogsRequest, context: Context) -> AsyncIterator[logs_pb2.LogMessage]:
        require_manager(caller_of(context), self._store.view.nodes)
        if self._readers >= MAX_READERS:
            raise Exhausted(f"{MAX_READERS} log readers are open on this manager: ask another one")
        target = find_target(self._store.view, request.target)
        options = _options(request)
        agents = Agents(self._identity, self._open)
        self._readers += 1
        try:
            read = self._follow if options.follow else self._merge
            async with contextlib.aclosing(read(target, agents, options)) as lines:
                async for line in lines:
                    yield line
        finally:
            self._readers -= 1
            await agents.close()

    async def _merge(
        self, target: Service | Task, agents: Agents, options: LogOptions
    ) -> AsyncGenerator[logs_pb2.LogMessage, None]:
        """What there is, in order of time."""
        sources, left_out = chosen(sources_of(self._store.view, target))
        if left_out:
            yield _too_many(left_out)
        async with contextlib.aclosing(MergedLogs()) as merge:
            for source in sources:
                merge.add(read_log(source, agents, options))
            async for line in merge.lines():
                yield line

    async def _follow(
        self, target: Service | Task, agents: Agents, options: LogOptions
    ) -> AsyncGenerator[logs_pb2.LogMessage, None]:
        """What there is and what comes, until the caller goes or the target is gone."""
        changed = asyncio.Event()
        _, too_many = chosen(sources_of(self._store.view, target))
        left_out = [source for source in too_many if source.task.status.state.is_terminal]
        if left_out:
            yield _too_many(left_out)
        ignored = {source.task.id for source in left_out}
        unsubscribe = self._store.subscribe(lambda index, events: changed.set())
        try:
            async with contextlib.aclosing(FollowedLogs(agents, options)) as follow:
                while True:
                    changed.clear()
                    follow.add(s for s in sources_of(self._store.view, target) if s.task.id not in ignored)
                    if not follow.is_busy and _is_over(self._store.view, target):
                        return
                    async for line in follow.lines_until(changed):
                        yield line
        finally:
            unsubscribe()


def find_target(view: Tables, reference: str) -> Service | Task:
    """A service or a task, by id, name or the beginning of an id."""
    for find in (find_service, find_task):
        with contextlib.suppress(NotFound):
            return find(view, reference)
    raise NotFound(f"no such task or service: {reference}")


def sources_of(view: Tables, target: Service | Task) -> Iterator[LogSource]:
    """The tasks of the target that may have written something."""
    if isinstance(target, Service):
        tasks: Iterator[Task] = view.service_tasks(target.id)
    else:
        tasks = iter([view.tasks.get(target.id, target)])
    for task in tasks:
        if task.node_id and task.status.state >= TaskState.STARTING and task.status.state is not TaskState.REJECTED:
            yield LogSource(task, view.nodes.get(task.node_id))


def chosen(sources: Iterable[LogSource]) -> tuple[list[LogSource], list[LogSource]]:
    """Those that are read, the oldest first, and those that are too many: tasks that ended long ago, if need be."""
    latest = sorted(sources, key=lambda source: (source.task.status.state.is_terminal, -source.task.meta.created_at))
    read: list[LogSource] = []
    left_out: list[LogSource] = []
    on_node: Counter[str] = Counter()
    for source in latest:
        fits = len(read) < MAX_TASKS and on_node[source.task.node_id] < MAX_TASKS_PER_NODE
        (read if fits else left_out).append(source)
        on_node[source.task.node_id] += fits
    return sorted(read, key=lambda source: source.task.meta.created_at), left_out


def _too_many(left_out: list[LogSource]) -> logs_pb2.LogMessage:
    limit = f"{MAX_TASKS} at most are read at once, {MAX_TASKS_PER_NODE} of one node: ask for single tasks"
    return left_out[0].note(f"{len(left_out)} tasks are left out: {limit}\n")


def _is_over(view: Tables, target: Service | Task) -> bool:
    """Whether nothing can be written any more."""
    if isinstance(target, Service):
        return target.id not in view.services
    task = view.tasks.get(target.id)
    return task is None or task.status.state.is_terminal


def _options(request: logs_pb2.ReadLogsRequest) -> LogOptions:
    return LogOptions(
        follow=request.follow,
        tail=request.tail if request.HasField("tail") else None,
        since=timestamp(request.since) if request.HasField("since") else 0.0,
    )
