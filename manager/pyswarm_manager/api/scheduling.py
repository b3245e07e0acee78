"""Scheduling: why tasks are where they are (or wait), and moving them so that they are spread evenly.

Reads here what the planner would decide, from this manager's view; `Rebalance` only asks: it writes into the service's
`rebalance_status`, and the planner moves the tasks, a few at a time.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from pyswarm.v1 import control_pb2, scheduling_pb2_grpc
from pyswarm.v1 import scheduling_pb2 as pb
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.ids import IdSource
from pyswarm_common.model import RebalanceState, RebalanceStatus, Service, ServiceMode, Task
from pyswarm_manager.api.caller import Context
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.findings import findings, first_waiting
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.shown import shown_service, shown_task
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.orchestrate.rebalance import planned_moves
from pyswarm_manager.planner.schedule.why import Verdict, why
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.store.changes import Update
from pyswarm_manager.store.lookup import find_service, find_wanted_task
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import StorePort, Writer, retried

_DEFAULT_LIMIT = 100


class SchedulingServicer(scheduling_pb2_grpc.SchedulingServicer):
    """Serves Scheduling."""

    def __init__(
        self, store: StorePort, raft: RaftPort, forwarder: LeaderForwarder, ids: IdSource, clock: Clock
    ) -> None:
        self._calls = Calls("Scheduling", store, raft, forwarder)
        self._writer = Writer(store, raft, ids, clock)
        self._clock = clock

    async def ExplainTask(self, request: pb.ExplainTaskRequest, context: Context) -> pb.ExplainTaskResponse:
        view = await self._calls.view(context, control_pb2.CONSISTENCY_LINEARIZABLE)
        return _explained(view, find_wanted_task(view, request.task), request.limit, self._clock())

    async def ExplainService(self, request: pb.ExplainServiceRequest, context: Context) -> pb.ExplainServiceResponse:
        view = await self._calls.view(context, control_pb2.CONSISTENCY_LINEARIZABLE)
        service = find_service(view, request.service)
        said = findings(view, service, self._clock())
        response = pb.ExplainServiceResponse(service=shown_service(service), findings=said)
        waiting = first_waiting(view, service)
        if waiting is not None:
            response.waiting.CopyFrom(_explained(view, waiting, request.limit, self._clock()))
        return response

    async def PlanRebalance(self, request: pb.PlanRebalanceRequest, context: Context) -> pb.PlanRebalanceResponse:
        view = await self._calls.view(context, control_pb2.CONSISTENCY_LINEARIZABLE)
        response = pb.PlanRebalanceResponse()
        draft = Draft(view, Ledger.of(view), self._clock(), _no_randomness, _no_ids)
        for service in _asked_for(view, request.services):
            for task, node_id in planned_moves(draft, service, view.slots.get(service.id, {})):
                response.moves.append(_move(view, service, task, node_id))
        return response

    async def Rebalance(self, request: pb.RebalanceRequest, context: Context) -> pb.RebalanceResponse:
        async def local() -> pb.RebalanceResponse:
            services = await begin_rebalance(self._writer, request.services)
            return pb.RebalanceResponse(services=[shown_service(service) for service in services])

        return await self._calls.on_leader(context, "Rebalance", request, pb.RebalanceResponse, local)


async def begin_rebalance(writer: Writer, names: Sequence[str]) -> list[Service]:
    """Ask for it. What is being rebalanced already goes on."""

    async def attempt() -> list[Service]:
        services = _asked_for(writer.store.view, names)
        changes = [Update(_asked(service)) for service in services if not _runs(service)]
        if changes:
            await writer.store.propose(changes)
        view = writer.store.view
        return [view.services.get(service.id, service) for service in services]

    return await retried(attempt)


def _asked_for(view: Tables, names: Sequence[str]) -> list[Service]:
    if not names:
        return [service for service in view.services.values() if service.spec.mode is ServiceMode.REPLICATED]
    services = [find_service(view, name) for name in names]
    for service in services:
        if service.spec.mode is not ServiceMode.REPLICATED:
            raise FailedPrecondition(
                f"service {service.spec.name} is not replicated: only tasks of replicated services can move"
            )
    return list({service.id: service for service in services}.values())


def _runs(service: Service) -> bool:
    return service.rebalance_status is not None and service.rebalance_status.state is RebalanceState.RUNNING


def _asked(service: Service) -> Service:
    return replace(service, rebalance_status=RebalanceStatus(state=RebalanceState.RUNNING))


def _explained(view: Tables, task: Task, limit: int, now: float) -> pb.ExplainTaskResponse:
    found = why(view, task, now, limit or _DEFAULT_LIMIT)
    response = pb.ExplainTaskResponse(task=shown_task(task))
    if found is None:
        response.summary = "its service was removed"
        return response
    response.summary = found.summary
    response.nodes.extend(_verdict(verdict) for verdict in found.verdicts)
    response.nodes_total = found.nodes
    for suggestion in found.suggestions:
        response.suggestions.add(parts=[fix.text for fix in suggestion.fixes])
    response.one_more_node = found.one_more_node
    response.packs = found.packs
    return response


def _verdict(verdict: Verdict) -> pb.NodeVerdict:
    score = verdict.score
    return pb.NodeVerdict(
        node_id=verdict.node_id,
        hostname=verdict.hostname,
        chosen=verdict.is_chosen,
        refusals=verdict.refusals,
        spread=score.spread,
        failures=score.failures,
        second_choice=score.second_choice,
        wish=score.wish,
        own_tasks=score.own_tasks,
        tasks=score.tasks,
        reserved=score.reserved,
    )


def _move(view: Tables, service: Service, task: Task, node_id: str) -> pb.TaskMove:
    return pb.TaskMove(
        service_id=service.id,
        service_name=service.spec.name,
        task_id=task.id,
        task_name=task.name,
        from_node_id=task.node_id,
        from_hostname=_hostname(view, task.node_id),
        to_node_id=node_id,
        to_hostname=_hostname(view, node_id),
    )


def _hostname(view: Tables, node_id: str) -> str:
    node = view.nodes.get(node_id)
    return node.description.hostname if node is not None else ""


def _no_randomness() -> float:
    raise AssertionError("a plan of moves draws no lots")


def _no_ids() -> str:
    raise AssertionError("a plan of moves makes nothing")
