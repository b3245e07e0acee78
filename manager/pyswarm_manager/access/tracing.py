"""A way through the networks, step by step: who is asked in which order, and what the answer is in the end.

The near side says what its kernel would do with packets, the store knows which task has the address they go to, and
that task's node says what they would meet there. Every step is passed on as it is; the last one is the verdict.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc

from pyswarm.v1 import agent_pb2_grpc, network_checks_pb2
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Task
from pyswarm_manager.access import trace_ends
from pyswarm_manager.api.log_stream import Agents, LogSource
from pyswarm_manager.store.tables import Tables

pb = network_checks_pb2
TIMEOUT_S = 15.0
MAX_TARGET = 253
_ODD = pb.TraceStep.OUTCOME_WARNING
_STOP, _THROUGH = pb.TraceStep.OUTCOME_STOP, pb.TraceStep.OUTCOME_THROUGH


class Unanswered(Exception):
    """A node that cannot be asked; the message says why."""


@dataclass(slots=True)
class Tally:
    """Which of the ways go through."""

    through: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)


class Tracer:
    """For one call."""

    def __init__(self, view: Tables, agents: Agents) -> None:
        self._view = view
        self._agents = agents

    async def run(self, request: pb.TraceNetworkRequest) -> AsyncIterator[pb.TraceStep]:
        check(request)
        door = trace_ends.door_of(self._view, request.source, request.target)
        if door is not None:
            check_door(request)
            source = LogSource(Task(id="", node_id=door.id), door)  # no container: the node itself is asked
            where = _name(source)
        else:
            source = trace_ends.source_of(self._view, request.source)
            where = _name(source)
            yield _step("node", f"{source.task.name} is on node {where}")
        near: pb.TraceSourceResponse | None = None
        try:
            near = await self._near(source, request)
        except Unanswered as error:
            yield verdict_of([str(error)], [])
        if near is None:
            return
        tally = Tally()
        for step in near.steps:
            yield _at(step, where)
            if step.outcome == _STOP:
                tally.stopped.append(step.text)
        if tally.stopped and not near.hops:
            for text in trace_ends.absent(self._view, request.target):
                tally.stopped[0] += f"; {text}"
                yield _step("backend", text, _ODD)
        for hop in near.hops:
            async for step in self._far(hop, request, tally):
                yield step
        if near.HasField("probe"):
            yield _at(near.probe, where)
            if near.probe.outcome == _STOP:
                tally.through.clear()
                tally.stopped.append(near.probe.text)
        yield verdict_of(tally.stopped, tally.through)

    async def _near(self, source: LogSource, request: pb.TraceNetworkRequest) -> pb.TraceSourceResponse:
        asked = pb.TraceSourceRequest(
            sandbox_id=trace_ends.sandbox_of(source.task),
            target=self._address_of(request.target) or request.target,
            port=request.port,
            protocol=request.protocol,
            probe=request.probe,
        )
        answer: pb.TraceSourceResponse = await self._ask(source, "TraceSource", asked)
        return answer

    async def _far(
        self, hop: pb.TraceHop, request: pb.TraceNetworkRequest, tally: Tally
    ) -> AsyncIterator[pb.TraceStep]:
        """The backend's side; what is outside the cluster ends the trace there."""
        task = self._view.tasks.get(hop.endpoint_id) or self._holder(hop)
        if task is None:
            tally.through.append(f"{hop.address} (no task: its side was not looked at)")
            return
        source = LogSource(task, self._view.nodes.get(task.node_id))
        asked = pb.TraceTargetRequest(
            sandbox_id=trace_ends.sandbox_of(task), hop=hop, port=request.port, protocol=request.protocol
        )
        try:
            answer: pb.TraceTargetResponse = await self._ask(source, "TraceTarget", asked)
        except Unanswered as error:
            tally.stopped.append(f"{task.name}: {error}")
            yield _step("node", str(error), _STOP)
            return
        yield _step("node", f"{task.name} is on node {_name(source)}, which answers")
        stops = [step.text for step in answer.steps if step.outcome == _STOP]
        for step in answer.steps:
            yield _at(step, _name(source))
        if stops:
            tally.stopped.append(f"{task.name}: {stops[0]}")
        else:
            tally.through.append(f"{task.name} ({hop.address})")

    async def _ask(self, source: LogSource, method: str, request: Any) -> Any:
        reason = source.unreachable()
        if reason:
            raise Unanswered(reason)
        assert source.node is not None
        try:
            channel = await self._agents.connected(source.node.description.agent_address)
            return await getattr(agent_pb2_grpc.AgentStub(channel), method)(request, timeout=TIMEOUT_S)
        except TimeoutError:
            raise Unanswered(f"the agent of node {_name(source)} does not answer") from None
        except grpc.aio.AioRpcError as error:
            raise Unanswered(f"node {_name(source)}: {error.details() or error.code().name}") from error

    def _address_of(self, target: str) -> str:
        """Of a task that is meant by its id or full name, which no resolver knows: its first address."""
        task = self._view.tasks.get(target)
        addresses = [] if task is None else [one for attachment in task.networks for one in attachment.addresses]
        return addresses[0].partition("/")[0] if addresses else ""

    def _holder(self, hop: pb.TraceHop) -> Task | None:
        """The task that has the address on that network."""
        if not hop.network_id:
            return None
        for task in self._view.tasks.values():
            for attachment in task.networks:
                if attachment.network_id == hop.network_id and any(
                    address.partition("/")[0] == hop.address for address in attachment.addresses
                ):
                    return task
        return None


def check(request: pb.TraceNetworkRequest) -> None:
    """Raises InvalidArgument."""
    if not request.target or len(request.target) > MAX_TARGET:
        raise InvalidArgument("say where the way should lead: a service, a task, a name or an address")
    if request.port > 65535:
        raise InvalidArgument(f"port {request.port} is out of range: 1 to 65535")
    if request.protocol not in ("", "tcp", "udp", "sctp"):
        raise InvalidArgument(f"unknown protocol {request.protocol!r}: use tcp, udp or sctp")


def check_door(request: pb.TraceNetworkRequest) -> None:
    """Raises InvalidArgument."""
    if not request.port:
        raise InvalidArgument(f"say which published port: {trace_ends.PUBLISHED}:PORT")
    if request.probe:
        raise InvalidArgument("--probe opens a connection from inside a container: a node has none")


def verdict_of(stopped: Iterable[str], through: Iterable[str]) -> pb.TraceStep:
    """Goes through, if it does to every backend; the first reason why not, otherwise."""
    reasons, goals = list(stopped), list(through)
    if not reasons and goals:
        return _step("verdict", f"goes through to {', '.join(goals)}", _THROUGH)
    if not reasons:
        return _step("verdict", "stops: there is nowhere to go", _STOP)
    some = f" (but goes through to {', '.join(goals)})" if goals else ""
    return _step("verdict", f"stops: {reasons[0]}{some}", _STOP)


def _step(what: str, text: str, outcome: pb.TraceStep.Outcome.ValueType = pb.TraceStep.OUTCOME_OK) -> pb.TraceStep:
    return pb.TraceStep(outcome=outcome, step=what, text=text)


def _at(step: pb.TraceStep, hostname: str) -> pb.TraceStep:
    step.node_hostname = hostname
    return step


def _name(source: LogSource) -> str:
    return source.node.description.hostname if source.node is not None else source.task.node_id
