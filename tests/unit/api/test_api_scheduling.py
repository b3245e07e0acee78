"""Scheduling's API: explanations of tasks and services from any manager, and asking for balance."""

from __future__ import annotations

import time
from typing import Any

import pytest
from manager_harness import Manager, Swarm, asked, new_id, service_spec, worker_node
from msgspec.structs import replace

from pyswarm.v1 import scheduling_pb2 as pb
from pyswarm.v1 import scheduling_pb2_grpc, types_pb2
from pyswarm_common.errors import FailedPrecondition, NotFound
from pyswarm_common.model import (
    JobStatus,
    NodeDescription,
    Placement,
    ResourceRequirements,
    Resources,
    Service,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)

GIB = 1 << 30


def scheduling(swarm: Swarm, manager: Manager | None = None) -> Any:
    return scheduling_pb2_grpc.SchedulingStub(swarm.channel(manager or swarm.leader))


def with_room(node_id: str, hostname: str, gib: int) -> Any:
    description = NodeDescription(hostname=hostname, resources=Resources(memory_bytes=gib * GIB))
    return replace(worker_node(node_id, hostname), description=description)


def service(name: str, gib: int = 0, *constraints: str, mode: ServiceMode = ServiceMode.REPLICATED) -> Service:
    reserved = ResourceRequirements(reservations=Resources(memory_bytes=gib * GIB))
    task = TaskSpec(resources=reserved, placement=Placement(constraints=constraints))
    spec: ServiceSpec = replace(
        service_spec(name), task=task, mode=mode, replicas=4 if mode is mode.REPLICATED else None
    )
    return Service(id=new_id(), spec=spec)


def task_of(owner: Service, slot: int, node_id: str = "", message: str = "") -> Task:
    state = TaskState.RUNNING if node_id else TaskState.PENDING
    return Task(
        id=new_id(),
        service_id=owner.id,
        service_name=owner.spec.name,
        slot=slot,
        node_id=node_id,
        spec=owner.spec.task,
        desired_state=TaskState.RUNNING,
        status=TaskStatus(state=state, message=message),
    )


async def test_a_waiting_task_is_explained_by_every_manager(swarm3: Swarm) -> None:
    big = service("big", 3, "node.role==worker")
    await swarm3.create(with_room("w1", "alpha", 2), with_room("w2", "beta", 1), big)
    waiting = task_of(big, 1, message="no suitable node (insufficient memory on 2 nodes)")
    await swarm3.create(waiting)
    for manager in swarm3.managers:
        told = await asked(scheduling(swarm3, manager).ExplainTask(pb.ExplainTaskRequest(task="big.1", limit=2)))
        assert told.task.id == waiting.id
        assert (len(told.nodes), told.nodes_total) == (2, 5)
        assert list(told.suggestions[0].parts) == ["reserve 2 GiB of memory instead of 3 GiB"]
        assert told.one_more_node == "add a node with node.role==worker, 3 GiB of memory free"


async def test_what_is_the_matter_with_a_service(swarm3: Swarm) -> None:
    web = service("web", 3)
    await swarm3.create(with_room("w1", "alpha", 4), web)
    failed = replace(
        task_of(web, 2, "w1"),
        desired_state=TaskState.SHUTDOWN,
        status=TaskStatus(state=TaskState.FAILED, err="exit 1"),
        ended_at=time.time(),
    )
    await swarm3.create(task_of(web, 1, "w1"), failed, task_of(web, 2, message="no suitable node (…)"))
    told = await asked(scheduling(swarm3).ExplainService(pb.ExplainServiceRequest(service="web")))
    assert told.findings[0] == "1 of 4 tasks run"
    assert told.findings[1] == "1 task waits: no suitable node (…)"
    assert told.findings[2] == "web.2 failed once in the last minutes, the last time on alpha: exit 1"
    assert told.waiting.task.slot == 2


async def test_how_far_the_run_of_a_job_is_and_not_how_many_of_its_ended_tasks_run(swarm3: Swarm) -> None:
    owner = service("job", mode=ServiceMode.REPLICATED_JOB)
    done = [replace(task_of(owner, slot), desired_state=TaskState.COMPLETE) for slot in (1, 2)]
    await swarm3.create(
        replace(owner, job_status=JobStatus(iteration=3, succeeded=2, failed=1)),
        *(replace(task, status=replace(task.status, state=TaskState.COMPLETE)) for task in done),
    )
    told = await asked(scheduling(swarm3).ExplainService(pb.ExplainServiceRequest(service="job")))
    assert list(told.findings) == ["run 3: 0 running, 2 completed, 1 given up"]


async def test_balance_is_planned_by_every_manager_and_begun_by_the_leader(swarm3: Swarm) -> None:
    web = service("web")
    await swarm3.create(with_room("w1", "alpha", 4), web)
    await swarm3.create(*(task_of(web, slot, "w1") for slot in range(1, 5)))
    follower = swarm3.followers[0]
    planned = await asked(scheduling(swarm3, follower).PlanRebalance(pb.PlanRebalanceRequest(services=["web"])))
    assert {move.from_hostname for move in planned.moves} == {"alpha"}
    assert {move.to_hostname for move in planned.moves} == {"manager1", "manager2", "manager3"}
    begun = await asked(scheduling(swarm3, follower).Rebalance(pb.RebalanceRequest(services=["web"])))
    assert [item.rebalance_status.state for item in begun.services] == [types_pb2.REBALANCE_STATE_RUNNING]
    version = swarm3.leader.store.view.services[web.id].meta.version
    await asked(scheduling(swarm3).Rebalance(pb.RebalanceRequest()))
    assert swarm3.leader.store.view.services[web.id].meta.version == version, "it runs already"


async def test_what_cannot_be_balanced_or_is_not_there_is_refused(swarm3: Swarm) -> None:
    await swarm3.create(service("agent", mode=ServiceMode.GLOBAL))
    with pytest.raises(FailedPrecondition, match="only tasks of replicated services can move"):
        await asked(scheduling(swarm3).Rebalance(pb.RebalanceRequest(services=["agent"])))
    with pytest.raises(NotFound):
        await asked(scheduling(swarm3).ExplainTask(pb.ExplainTaskRequest(task="nobody.1")))
    with pytest.raises(NotFound):
        await asked(scheduling(swarm3).ExplainService(pb.ExplainServiceRequest(service="nobody")))
