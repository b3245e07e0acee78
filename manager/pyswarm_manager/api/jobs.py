"""Jobs: a run that somebody asks for. What a run is, the planner's `jobs` and `cron` say; here it is begun."""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

from pyswarm.v1 import control_pb2, jobs_pb2_grpc
from pyswarm.v1 import jobs_pb2 as pb
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.ids import IdSource
from pyswarm_common.model import JobStatus, Service, ServiceMode, TaskState
from pyswarm_common.model.sizes import job_size
from pyswarm_manager.api.caller import Context
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.shown import shown_service
from pyswarm_manager.planner.orchestrate import cron, jobs
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.store.changes import Update
from pyswarm_manager.store.lookup import find_service
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import StorePort, Writer, retried


class JobsServicer(jobs_pb2_grpc.JobsServicer):
    """Serves Jobs."""

    def __init__(
        self, store: StorePort, raft: RaftPort, forwarder: LeaderForwarder, ids: IdSource, clock: Clock
    ) -> None:
        self._calls = Calls("Jobs", store, raft, forwarder)
        self._writer = Writer(store, raft, ids, clock)

    async def RunService(self, request: pb.RunServiceRequest, context: Context) -> pb.RunServiceResponse:
        async def local() -> pb.RunServiceResponse:
            service = await run_service(self._writer, request.service)
            iteration = service.job_status.iteration if service.job_status is not None else 0
            return pb.RunServiceResponse(service=shown_service(service), iteration=iteration)

        return await self._calls.on_leader(context, "RunService", request, pb.RunServiceResponse, local)


async def run_service(writer: Writer, name: str) -> Service:
    """Begin another run. Raises FailedPrecondition where there is nothing to run, or it may not run now."""

    async def attempt() -> Service:
        service = find_service(writer.store.view, name)
        await writer.store.propose([Update(another_run(service, writer.clock()))])
        return writer.store.view.services.get(service.id, service)

    return await retried(attempt)


def another_run(service: Service, now: float) -> Service:
    """The service with its next run begun."""
    name, mode = service.spec.name, service.spec.mode
    if not mode.is_job:
        raise FailedPrecondition(f"service {name} is no job: only jobs and cron services are run")
    if service.spec.stopped:
        raise FailedPrecondition(f"service {name} is stopped: start it with `pyswarm service start {name}` first")
    return cron.run_now(service, now) if mode is ServiceMode.CRON else jobs.begin(service, now)


def count_job_tasks(view: Tables, service: Service) -> control_pb2.ServiceTaskCounts:
    """Of a job's runs that are going: as many tasks as may run at a time, those that do; of its last run: how many
    have completed."""
    status, mode = service.job_status or JobStatus(), service.spec.mode
    wanted = running = 0
    for task in view.service_tasks(service.id):
        is_going = task.desired_state <= TaskState.RUNNING and task.status.state <= TaskState.RUNNING
        wanted += is_going
        running += is_going and task.status.state is TaskState.RUNNING
    size = job_size(service.spec)
    desired = wanted if mode is not ServiceMode.REPLICATED_JOB else min(size.concurrent, size.total)
    return control_pb2.ServiceTaskCounts(desired=desired, running=running, completed=status.succeeded)
