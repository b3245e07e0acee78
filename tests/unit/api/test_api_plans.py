"""Plans' API: what changes and losses would do, from any manager; plans applied as planned, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from manager_harness import Manager, Swarm, asked, service_spec, spec_of, wire, worker_node
from msgspec.structs import replace

from pyswarm.v1 import control_pb2, plans_pb2_grpc, types_pb2
from pyswarm.v1 import plans_pb2 as pb
from pyswarm_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfSequence
from pyswarm_common.model import Availability, NodeDescription, NodeSpec, ServiceSpec


def plans(swarm: Swarm, manager: Manager | None = None) -> Any:
    return plans_pb2_grpc.PlansStub(swarm.channel(manager or swarm.leader))


def create(spec: ServiceSpec) -> pb.PlannedRequest:
    return pb.PlannedRequest(create_service=control_pb2.CreateServiceRequest(spec=wire(spec)))


def on_workers(name: str, replicas: int = 2, image: str = "busybox") -> ServiceSpec:
    spec = service_spec(name, image, replicas=replicas)
    return replace(
        spec, task=replace(spec.task, placement=replace(spec.task.placement, constraints=("node.role==worker",)))
    )


async def with_workers(swarm: Swarm) -> None:
    await swarm.create(
        worker_node("w1", "alpha", spec=NodeSpec(labels={"zone": "a"})),
        worker_node("w2", "beta", spec=NodeSpec(labels={"zone": "b"})),
    )


async def planned(swarm: Swarm, *requests: pb.PlannedRequest, manager: Manager | None = None) -> pb.PlanChangeResponse:
    return await asked(plans(swarm, manager).PlanChange(pb.PlanChangeRequest(requests=requests)))


def as_plan(answer: pb.PlanChangeResponse, *requests: pb.PlannedRequest) -> pb.Plan:
    found = answer.forecast
    return pb.Plan(format=1, cluster_id=answer.cluster_id, index=found.index, outcome=found.outcome, requests=requests)


async def applied(swarm: Swarm, plan: pb.Plan, manager: Manager | None = None) -> pb.ApplyPlanResponse:
    return await asked(plans(swarm, manager).ApplyPlan(pb.ApplyPlanRequest(plan=plan)))


def scaled(service: types_pb2.Service, replicas: int) -> control_pb2.UpdateServiceRequest:
    spec = spec_of(service)
    spec.replicas = replicas
    return control_pb2.UpdateServiceRequest(service_id=service.id, version=service.meta.version, spec=spec)


async def test_every_manager_tells_what_a_new_service_would_do_and_nothing_changes(swarm3: Swarm) -> None:
    await with_workers(swarm3)
    for manager in swarm3.managers:
        index = swarm3.leader.store.view.index
        found = (await planned(swarm3, create(on_workers("web")), manager=manager)).forecast
        assert found.index == index == swarm3.leader.store.view.index
        assert [(task.kind, task.task_name, task.to_hostname) for task in found.tasks] == [
            (pb.PLANNED_KIND_START, "web.1", "alpha"),
            (pb.PLANNED_KIND_START, "web.2", "beta"),
        ]
        assert {(item.hostname, item.image, item.unknown) for item in found.images} == {
            ("alpha", "busybox", True),
            ("beta", "busybox", True),
        }
        assert not found.pending
    assert not swarm3.leader.store.view.services


async def test_what_does_not_fit_is_told_with_its_reason(swarm: Swarm) -> None:
    await with_workers(swarm)
    spec = on_workers("web", 3)
    spec = replace(spec, task=replace(spec.task, placement=replace(spec.task.placement, max_replicas_per_node=1)))
    found = (await planned(swarm, create(spec))).forecast
    assert len(found.tasks) == 2
    [waiting] = found.pending
    assert waiting.task_name == "web.3"
    assert "max replicas per node limit reached on 2 nodes" in waiting.reason


async def test_a_plan_is_refused_where_the_change_would_be(swarm: Swarm) -> None:
    await with_workers(swarm)
    with pytest.raises(NotFound, match="service nothing not found"):
        await planned(swarm, pb.PlannedRequest(remove_service=control_pb2.RemoveServiceRequest(service="nothing")))
    with pytest.raises(AlreadyExists):
        await planned(swarm, create(on_workers("web")), create(on_workers("web")))
    with pytest.raises(InvalidArgument):
        await planned(swarm, create(on_workers("-")))
    with pytest.raises(InvalidArgument, match="1 to 100"):
        await planned(swarm)
    with pytest.raises(InvalidArgument, match="empty"):
        await planned(swarm, pb.PlannedRequest())


async def test_a_role_is_not_planned(swarm: Swarm) -> None:
    await with_workers(swarm)
    node = swarm.leader.store.view.nodes["w1"]
    spec = types_pb2.NodeSpec(role=types_pb2.NODE_ROLE_MANAGER)
    request = control_pb2.UpdateNodeRequest(node_id="w1", version=node.meta.version, spec=spec)
    with pytest.raises(FailedPrecondition, match="role cannot be planned"):
        await planned(swarm, pb.PlannedRequest(update_node=request))


async def test_a_plan_is_applied_whole_by_any_manager(swarm3: Swarm) -> None:
    await with_workers(swarm3)
    node = swarm3.leader.store.view.nodes["w1"]
    drained = wire(replace(node.spec, availability=Availability.DRAIN))
    drain = control_pb2.UpdateNodeRequest(node_id="w1", version=node.meta.version, spec=drained)
    requests = (pb.PlannedRequest(update_node=drain), create(on_workers("web")), create(on_workers("api", 1)))
    answer = await planned(swarm3, *requests)
    assert {task.to_hostname for task in answer.forecast.tasks} == {"beta"}
    done = await applied(swarm3, as_plan(answer, *requests), swarm3.followers[0])
    assert [service.spec.name for service in done.services] == ["web", "api"]
    view = swarm3.leader.store.view
    assert view.nodes["w1"].spec.availability is Availability.DRAIN
    assert {service.spec.name for service in view.services.values()} == {"web", "api"}
    versions = {service.meta.version for service in view.services.values()}
    assert versions == {done.index}, "all in one change set"


async def test_a_plan_is_refused_once_its_service_changed(swarm: Swarm) -> None:
    await with_workers(swarm)
    control = swarm.control()
    service = (
        await asked(control.CreateService(control_pb2.CreateServiceRequest(spec=wire(on_workers("web")))))
    ).service
    request = control_pb2.UpdateServiceRequest(
        service_id=service.id, version=service.meta.version, spec=spec_of(service)
    )
    request.spec.replicas = 4
    plan = as_plan(
        await planned(swarm, pb.PlannedRequest(update_service=request)), pb.PlannedRequest(update_service=request)
    )
    other = control_pb2.UpdateServiceRequest(service_id=service.id, version=service.meta.version, spec=spec_of(service))
    other.spec.replicas = 3
    changed = (await asked(control.UpdateService(other))).service
    words = f"the state moved since the plan was made .service web changed at {changed.spec_version}.; plan again"
    with pytest.raises(OutOfSequence, match=words):
        await applied(swarm, plan)
    [kept] = swarm.leader.store.view.services.values()
    assert kept.spec.replicas == 3


async def test_a_plan_is_refused_once_it_would_do_something_else(swarm: Swarm) -> None:
    await with_workers(swarm)
    requests = (create(on_workers("web")),)
    plan = as_plan(await planned(swarm, *requests), *requests)
    await swarm.create(worker_node("w0", "gamma", description=NodeDescription(hostname="gamma", engine_version="1")))
    node = swarm.leader.store.view.nodes["w2"]
    spec = wire(replace(node.spec, availability=Availability.PAUSE))
    await asked(
        swarm.control().UpdateNode(control_pb2.UpdateNodeRequest(node_id="w2", version=node.meta.version, spec=spec))
    )
    with pytest.raises(OutOfSequence, match="node gamma changed at"):
        await applied(swarm, plan)
    assert not swarm.leader.store.view.services


async def test_what_moved_and_does_not_matter_refuses_nothing(swarm: Swarm) -> None:
    await with_workers(swarm)
    requests = (create(on_workers("web")),)
    plan = as_plan(await planned(swarm, *requests), *requests)
    await asked(swarm.control().CreateService(control_pb2.CreateServiceRequest(spec=wire(on_workers("idle", 0)))))
    done = await applied(swarm, plan)
    assert [service.spec.name for service in done.services] == ["web"]


@pytest.mark.parametrize(("field", "value"), [("format", 2), ("cluster_id", "another")])
async def test_a_plan_of_elsewhere_is_refused(swarm: Swarm, field: str, value: object) -> None:
    await with_workers(swarm)
    requests = (create(on_workers("web")),)
    plan = as_plan(await planned(swarm, *requests), *requests)
    setattr(plan, field, value)
    with pytest.raises((FailedPrecondition, InvalidArgument)):
        await applied(swarm, plan)


async def test_a_loss_is_told_with_its_quorum(swarm3: Swarm) -> None:
    await with_workers(swarm3)
    one, two = (manager.node_id for manager in swarm3.followers)
    stub = plans(swarm3, swarm3.followers[0])
    await swarm3.leader.raft.hear_members()
    found = await asked(stub.SimulateLoss(pb.SimulateLossRequest(nodes=[one], labels=["zone=a"])))
    assert {node.hostname for node in found.nodes} >= {"alpha"}
    assert (found.quorum.managers, found.quorum.lost, found.quorum.reachable) == (3, 1, 2)
    assert found.quorum.holds
    assert not found.quorum.loses_leader
    found = await asked(stub.SimulateLoss(pb.SimulateLossRequest(nodes=[one, two])))
    assert not found.quorum.holds
    assert all(node.status.state.name == "READY" for node in swarm3.leader.store.view.nodes.values())


async def test_what_is_lost_must_be_known(swarm: Swarm) -> None:
    await with_workers(swarm)
    with pytest.raises(InvalidArgument, match="which nodes"):
        await asked(plans(swarm).SimulateLoss(pb.SimulateLossRequest()))
    with pytest.raises(NotFound, match="no node has the label"):
        await asked(plans(swarm).SimulateLoss(pb.SimulateLossRequest(labels=["zone=x"])))
    with pytest.raises(InvalidArgument, match="KEY=VALUE"):
        await asked(plans(swarm).SimulateLoss(pb.SimulateLossRequest(labels=["zone"])))
    with pytest.raises(NotFound):
        await asked(plans(swarm).SimulateLoss(pb.SimulateLossRequest(nodes=["n9"])))


async def test_no_answer_holds_credentials_of_registries(swarm: Swarm) -> None:
    await with_workers(swarm)
    spec = on_workers("web")
    container = replace(spec.task.container, registry_auth=b"hunter2")
    requests = (create(replace(spec, task=replace(spec.task, container=container))),)
    answer = await planned(swarm, *requests)
    assert b"hunter2" not in answer.SerializeToString()
    done = await applied(swarm, as_plan(answer, *requests))
    assert b"hunter2" not in done.SerializeToString()
