"""Plans: what a change or a loss would do, answered by the leader from a copy of its state; and changes as planned.

A plan is made by the API's own code (`trial`) and the real planner (`planner.foresight`) on a copy. Applying one makes
the plan again and proposes its changes, all in one change set, only if the same would happen: whatever moved meanwhile
and matters, the plan is refused then, and what moved and does not matter refuses nothing. What is committed in the
moment between the second look and the proposal is guarded by the versions of the changed objects only.

The imagining is done in a thread, one at a time, and is cut off after `PATIENCE_S`; who comes when `MAX_WAITING` wait
already is told to come later.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable

from pyswarm.v1 import control_pb2, plans_pb2_grpc
from pyswarm.v1 import plans_pb2 as pb
from pyswarm_common.errors import Exhausted, FailedPrecondition, InvalidArgument, OutOfSequence
from pyswarm_common.ids import IdSource
from pyswarm_manager.api import losses
from pyswarm_manager.api.caller import Context
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forecasts import Inventory, Question, add_images, forecast
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.shown import shown_service
from pyswarm_manager.api.trial import Trial, try_requests
from pyswarm_manager.planner.foresight.imagined import IsOver
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import StorePort, Writer

FORMAT = 1
PATIENCE_S = 12.0
MAX_REQUESTS = 100
MAX_WAITING = 4
_REST_S = 0.0001
_MOVED = "the state moved since the plan was made"


class PlansServicer(plans_pb2_grpc.PlansServicer):
    """Serves Plans."""

    def __init__(
        self,
        store: StorePort,
        raft: RaftPort,
        forwarder: LeaderForwarder,
        ids: IdSource,
        clock: Clock,
        inventory: Inventory,
    ) -> None:
        self._store, self._raft, self._ids, self._clock = store, raft, ids, clock
        self._inventory = inventory
        self._calls = Calls("Plans", store, raft, forwarder)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def PlanChange(self, request: pb.PlanChangeRequest, context: Context) -> pb.PlanChangeResponse:
        async def local() -> pb.PlanChangeResponse:
            view = await self._calls.view(context, control_pb2.CONSISTENCY_LINEARIZABLE)
            cluster_id = view.cluster.id if view.cluster is not None else ""
            found, _ = await self._planned(request.requests)
            return pb.PlanChangeResponse(forecast=found, cluster_id=cluster_id)

        return await self._calls.on_leader(context, "PlanChange", request, pb.PlanChangeResponse, local, is_read=True)

    async def ApplyPlan(self, request: pb.ApplyPlanRequest, context: Context) -> pb.ApplyPlanResponse:
        async def local() -> pb.ApplyPlanResponse:
            await self._calls.view(context, control_pb2.CONSISTENCY_LINEARIZABLE)
            return await self._apply(request.plan)

        return await self._calls.on_leader(context, "ApplyPlan", request, pb.ApplyPlanResponse, local)

    async def SimulateLoss(self, request: pb.SimulateLossRequest, context: Context) -> pb.SimulateLossResponse:
        async def local() -> pb.SimulateLossResponse:
            view = await self._calls.view(context, control_pb2.CONSISTENCY_LINEARIZABLE)
            return await self._lost(view, request)

        return await self._calls.on_leader(
            context, "SimulateLoss", request, pb.SimulateLossResponse, local, is_read=True
        )

    # ---- what changes would do

    async def _planned(self, requests: Collection[pb.PlannedRequest]) -> tuple[pb.Forecast, Trial]:
        if not 0 < len(requests) <= MAX_REQUESTS:
            raise InvalidArgument(f"a plan is of 1 to {MAX_REQUESTS} changes, not {len(requests)}")
        tables = self._store.view.copy()
        trial = Trial(tables.copy(), self._clock)
        writer = Writer(trial, self._raft, self._ids, self._clock)
        targets = await try_requests(writer, requests)
        return await self._forecast(Question(tables, trial.changes, targets, self._clock())), trial

    async def _forecast(self, question: Question) -> pb.Forecast:
        if self._waiting >= MAX_WAITING:
            raise Exhausted("too many plans are being made: try again in a moment")
        self._waiting += 1
        try:
            async with self._turn:
                found = await asyncio.to_thread(forecast, question, _patience())
        finally:
            self._waiting -= 1
        add_images(found, self._inventory)
        return found

    # ---- changes as planned

    async def _apply(self, plan: pb.Plan) -> pb.ApplyPlanResponse:
        cluster = self._store.view.cluster
        if plan.format != FORMAT:
            raise InvalidArgument("this is no plan that this manager understands: make it again with --plan")
        if cluster is None or plan.cluster_id != cluster.id:
            raise FailedPrecondition("the plan was made for another swarm")
        try:
            found, trial = await self._planned(plan.requests)
            if found.cut_off:
                raise FailedPrecondition(
                    "what the plan would do takes too long to foresee now: make the change without a plan"
                )
            if found.outcome != plan.outcome:
                raise OutOfSequence("something else would happen")
            index = await self._store.propose(trial.changes) if trial.changes else found.index
        except OutOfSequence as error:
            raise _moved(self._store.view, plan.index) from error
        view = self._store.view
        services = [view.services[service_id] for service_id in trial.service_ids() if service_id in view.services]
        return pb.ApplyPlanResponse(
            index=index, services=[shown_service(service) for service in services], forecast=found
        )

    # ---- what a loss would do

    async def _lost(self, view: Tables, request: pb.SimulateLossRequest) -> pb.SimulateLossResponse:
        nodes = losses.lost_nodes(view, request.nodes, request.labels)
        response = pb.SimulateLossResponse()
        for node in nodes:
            response.nodes.add(
                node_id=node.id,
                hostname=node.description.hostname,
                is_manager=node.manager_status is not None,
                already_down=not losses.loss_of([node], 0.0),
                tasks=losses.running_on(view, node.id),
            )
        quorum = losses.quorum_without(self._raft.members, nodes, self._raft.leader_id)
        response.quorum.CopyFrom(
            pb.QuorumEffect(
                managers=quorum.voters,
                lost=quorum.lost,
                reachable=quorum.reachable,
                majority=quorum.majority,
                holds=quorum.holds,
                loses_leader=quorum.loses_leader,
            )
        )
        tables, now = view.copy(), self._clock()
        outages = losses.without_running(tables, {node.id: None for node in nodes})
        response.forecast.CopyFrom(await self._forecast(Question(tables, losses.loss_of(nodes, now), (), now)))
        for service in outages:
            recovers = losses.has_running(tables, service)
            response.outages.add(service_id=service.id, service_name=service.spec.name, recovers=recovers)
        return response


def _patience() -> IsOver:
    ends_at = time.monotonic() + PATIENCE_S

    def is_over() -> bool:
        time.sleep(_REST_S)  # gives up the interpreter's lock: the loop must not wait for it 5 ms each time
        return time.monotonic() > ends_at

    return is_over


def _moved(view: Tables, index: int) -> OutOfSequence:
    """Names what has changed since; the first few of it."""
    services = [
        (service.spec_version, f"service {service.spec.name}")
        for service in view.services.values()
        if service.spec_version > index
    ]
    nodes = [
        (max(view.node_specs.get(node.id, 0), node.meta.version), f"node {node.description.hostname or node.id}")
        for node in view.nodes.values()
        if node.meta.version > index
    ]
    changed = _named(sorted([*services, *nodes]))
    what = changed or f"tasks or objects that it builds on changed after {index}"
    return OutOfSequence(f"{_MOVED} ({what}); plan again")


def _named(changed: Iterable[tuple[int, str]]) -> str:
    return ", ".join(f"{name} changed at {version}" for version, name in list(changed)[:3])
