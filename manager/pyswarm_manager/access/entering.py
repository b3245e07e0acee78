"""Into the containers of tasks, from any manager, which passes the bytes on to the agent of the task's node.

Decides which task is meant and whether its node can be asked, and has the use recorded in the audit log before it
begins. Only the leader can record; without one, people from elsewhere are refused, while this machine's root, who
could enter a container without us, is let in and warned about in the log. Keeps nothing: as much is read of either
side as the other takes.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

from pyswarm.v1 import agent_pb2_grpc, exec_pb2, exec_pb2_grpc
from pyswarm_common import lost_calls
from pyswarm_common.errors import Exhausted, FailedPrecondition, InvalidArgument, Unavailable
from pyswarm_common.model import HealthState, Service, Task, TaskState
from pyswarm_common.rpc import Caller, open_channel
from pyswarm_manager.access.admission import record_of
from pyswarm_manager.api.caller import Context, caller_of, require_manager
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.log_stream import Agents, LogSource, OpenChannel
from pyswarm_manager.ports import IdentityProvider, RaftPort
from pyswarm_manager.store.lookup import find_wanted_task
from pyswarm_manager.store.recording import asking, describe
from pyswarm_manager.store.tables import Kind, Tables
from pyswarm_manager.writes import StorePort

pb = exec_pb2
M = TypeVar("M")
_log = logging.getLogger(__name__)

MAX_OPEN = 128
"""Commands and copies at once on one manager."""
MAX_ACTION = 200
_ANNOUNCE = "/pyswarm.v1.Exec/Announce"


class EnteringServicer(exec_pb2_grpc.ExecServicer):
    """Serves Exec."""

    def __init__(
        self,
        store: StorePort,
        raft: RaftPort,
        forwarder: LeaderForwarder,
        identity: IdentityProvider,
        open_agent: OpenChannel = open_channel,
    ) -> None:
        self._store, self._identity, self._open_agent = store, identity, open_agent
        self._calls = Calls("Exec", store, raft, forwarder)
        self._open = 0

    async def Run(
        self, request_iterator: AsyncIterator[pb.ExecInput], context: Context
    ) -> AsyncGenerator[pb.ExecOutput, None]:
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("the first message must say what to run")
        program = first.start.argv[0] if first.start.argv else ""
        async with self._agent_of(context, first.start.target, f"exec {program}") as (source, agent):
            first.start.target = source.task.id
            call = agent.RunInTask(_with_first(first, request_iterator))
            async for answer in _answers(call, source):
                if answer.HasField("started"):
                    answer.started.node_id, answer.started.node_hostname = source.task.node_id, _name(source)
                yield answer

    async def CopyFrom(self, request: pb.CopyFromRequest, context: Context) -> AsyncGenerator[pb.ArchiveChunk, None]:
        async with self._agent_of(context, request.target, f"copy from {request.path}") as (source, agent):
            request.target = source.task.id
            async for chunk in _answers(agent.CopyFromTask(request), source):
                yield chunk

    async def CopyTo(self, request_iterator: AsyncIterator[pb.CopyToRequest], context: Context) -> pb.CopyToResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("start"):
            raise InvalidArgument("the first message must say where the files go")
        action = f"copy to {first.start.path}"
        async with self._agent_of(context, first.start.target, action) as (source, agent):
            first.start.target = source.task.id
            try:
                answer: pb.CopyToResponse = await agent.CopyToTask(_with_first(first, request_iterator))
            except grpc.aio.AioRpcError as error:
                raise _explained(error, source) from error
            return answer

    async def Announce(self, request: pb.AnnounceRequest, context: Context) -> pb.AnnounceResponse:
        async def local() -> pb.AnnounceResponse:
            task = self._store.view.tasks.get(request.task_id)
            describe(f"{task.name if task else 'task'} ({request.task_id}): {request.action[:MAX_ACTION]}")
            await self._store.propose(())  # nothing but the record of who asked
            return pb.AnnounceResponse()

        return await self._calls.on_leader(context, "Announce", request, pb.AnnounceResponse, local)

    @asynccontextmanager
    async def _agent_of(self, context: Context, target: str, action: str) -> AsyncIterator[tuple[LogSource, Any]]:
        """The task that is meant, and its agent, once the use is recorded."""
        require_manager(caller_of(context), self._store.view.nodes)
        if self._open >= MAX_OPEN:
            raise Exhausted(f"{MAX_OPEN} commands and copies are open on this manager: end some, or ask another one")
        source = source_of(self._store.view, target)
        agents = Agents(self._identity, self._open_agent)
        self._open += 1
        try:
            await self._announce(context, source.task, action)
            yield source, agent_pb2_grpc.AgentStub(await _connected(agents, source))
        finally:
            self._open -= 1
            await agents.close()

    async def _announce(self, context: Context, task: Task, action: str) -> None:
        request = pb.AnnounceRequest(task_id=task.id, action=action[:MAX_ACTION])
        try:
            with asking(record_of(caller_of(context), _ANNOUNCE, self._identity().node_id)):
                await self.Announce(request, context)
        except Unavailable as error:
            if caller_of(context).caller is not Caller.LOCAL:
                raise
            _log.warning("entered without a record, for there is no leader: %s of task %s (%s)", action, task.id, error)


def source_of(view: Tables, target: str) -> LogSource:
    """The task that is meant, with its node. Raises NotFound, or FailedPrecondition where no container of it runs."""
    service_id = view.ids_by_name.get((Kind.SERVICE, target), target)
    service = view.services.get(service_id)
    task = find_wanted_task(view, target) if service is None else _best_task(view, service)
    if not task.node_id or task.status.state < TaskState.STARTING:
        raise FailedPrecondition(f"task {task.name} has no container yet: it is {task.status.state.name.lower()}")
    return LogSource(task, view.nodes.get(task.node_id))


def _best_task(view: Tables, service: Service) -> Task:
    """A task that runs; rather one that is healthy, wanted and long there."""
    running = [task for task in view.service_tasks(service.id) if task.status.state is TaskState.RUNNING]
    if not running:
        raise FailedPrecondition(f"no task of service {service.spec.name} runs now: see `pyswarm service ps`")
    return min(running, key=lambda task: (_is_unhealthy(task), task.desired_state > TaskState.RUNNING, task.slot))


def _is_unhealthy(task: Task) -> bool:
    container = task.status.container
    return container is not None and container.health is HealthState.UNHEALTHY


async def _connected(agents: Agents, source: LogSource) -> grpc.aio.Channel:
    reason = source.unreachable()
    if reason:
        raise Unavailable(f"the container of {source.task.name} cannot be entered: {reason}")
    assert source.node is not None
    try:
        return await agents.connected(source.node.description.agent_address)
    except TimeoutError:
        raise Unavailable(f"the agent of node {_name(source)} does not answer: is that node up?") from None


def _name(source: LogSource) -> str:
    return source.node.description.hostname if source.node is not None else ""


async def _with_first(first: M, rest: AsyncIterator[M]) -> AsyncIterator[M]:
    yield first
    async for message in rest:
        yield message


async def _answers(call: Any, source: LogSource) -> AsyncIterator[Any]:
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as error:
        raise _explained(error, source) from error
    finally:
        call.cancel()  # the caller has gone; nothing happens after the end


def _explained(error: grpc.aio.AioRpcError, source: LogSource) -> Exception:
    """What the agent said goes on as it is. Of one that is gone gRPC has only words about sockets."""
    if lost_calls.is_lost(error) or lost_calls.is_unsent(error):
        return Unavailable(f"the agent of node {_name(source)} was lost: is that node up?")
    return error
