"""The NetworkChecks service by real gRPC: managers ask agents, name ends of ways, and know whose tables are behind."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from manager_harness import Swarm, make_identity, new_id, service_spec

from pyswarm.v1 import agent_pb2_grpc, network_checks_pb2_grpc
from pyswarm.v1 import network_checks_pb2 as pb
from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.model import (
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    NodeStatus,
    PlainAttachment,
    Service,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.access import trace_ends

STOP, THROUGH = pb.TraceStep.OUTCOME_STOP, pb.TraceStep.OUTCOME_THROUGH
WORKER = "b" * 25


class FakeAgent(agent_pb2_grpc.AgentServicer):
    """Answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.near = pb.TraceSourceResponse()
        self.far = pb.TraceTargetResponse()

    async def VerifyNetworks(self, request: pb.VerifyNetworksRequest, context: Any) -> pb.NodeNetworks:
        self.asked.append(request)
        table = pb.TableVersion(network_id="net1", name="app", held=3)
        return pb.NodeNetworks(checked={"networks": 1}, tables=[table], node_id="of another", repairs=7)

    async def TraceSource(self, request: pb.TraceSourceRequest, context: Any) -> pb.TraceSourceResponse:
        self.asked.append(request)
        return self.near

    async def TraceTarget(self, request: pb.TraceTargetRequest, context: Any) -> pb.TraceTargetResponse:
        self.asked.append(request)
        return self.far


@contextlib.asynccontextmanager
async def agent(swarm: Swarm) -> AsyncIterator[tuple[FakeAgent, Node]]:
    """An agent on a worker that the managers know."""
    fake, server = FakeAgent(), grpc.aio.server()
    agent_pb2_grpc.add_AgentServicer_to_server(fake, server)
    credentials = make_identity(swarm.root, WORKER, NodeRole.WORKER).server_credentials()
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    node = node_at(WORKER, "w1", f"127.0.0.1:{port}")
    await swarm.create(node)
    try:
        yield fake, node
    finally:
        await server.stop(None)


def node_at(node_id: str, name: str, address: str, state: NodeState = NodeState.READY) -> Node:
    description = NodeDescription(hostname=name, agent_address=address)
    return Node(id=node_id, description=description, status=NodeStatus(state=state))


def task_of(service: Service, slot: int, node: Node, state: TaskState = TaskState.RUNNING) -> Task:
    status = TaskStatus(state=state, message="waits" if state is TaskState.PENDING else "")
    return Task(id=new_id(), service_id=service.id, service_name=service.spec.name, slot=slot, node_id=node.id,
                desired_state=TaskState.RUNNING, status=status)  # fmt: skip


def plain_task(node: Node, container: str, name: str) -> Task:
    attachment = PlainAttachment(container_id=container, container_name=name)
    return Task(id=new_id(), node_id=node.id, spec=TaskSpec(attachment=attachment), desired_state=TaskState.RUNNING,
                status=TaskStatus(state=TaskState.ASSIGNED))  # fmt: skip


def checks(swarm: Swarm, identity: NodeIdentity | None = None) -> Any:
    """On a follower where there is one."""
    manager = next(iter(swarm.followers), swarm.leader)
    return network_checks_pb2_grpc.NetworkChecksStub(swarm.channel(manager, identity))


async def steps(swarm: Swarm, source: str, target: str, port: int = 0) -> list[pb.TraceStep]:
    request = pb.TraceNetworkRequest(source=source, target=target, port=port)
    return [step async for step in checks(swarm).TraceNetwork(request)]


async def test_every_node_is_asked_and_tables_are_held_against_the_leaders(swarm3: Swarm) -> None:
    swarm3.table_versions["net1"] = 5
    await swarm3.create(node_at(new_id(), "w2", "127.0.0.1:1", NodeState.DOWN))
    async with agent(swarm3) as (fake, _node):
        stream = checks(swarm3).VerifyNetworks(pb.VerifyNetworksRequest(dry_run=True))
        found = {answer.node_hostname: answer async for answer in stream}
    assert found["w2"].away == "node w2 is down"
    assert (found["w1"].node_id, found["w1"].away, found["w1"].repairs) == (WORKER, "", 7)
    (table,) = found["w1"].tables
    assert (table.held, table.current) == (3, 5)
    assert [request.dry_run for request in fake.asked] == [True]
    assert len(found) == 2 + len(swarm3.managers)


async def test_one_node_is_asked_if_it_is_named(swarm: Swarm) -> None:
    async with agent(swarm) as (_fake, _node):
        stream = checks(swarm).VerifyNetworks(pb.VerifyNetworksRequest(node="w1"))
        assert [answer.node_hostname async for answer in stream] == ["w1"]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(checks(swarm).VerifyNetworks(pb.VerifyNetworksRequest(node="nosuch"))))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_workers_may_not_ask(swarm: Swarm) -> None:
    identity = make_identity(swarm.root, WORKER, NodeRole.WORKER)
    trace = pb.TraceNetworkRequest(source="a", target="b")
    for call in (
        checks(swarm, identity).VerifyNetworks(pb.VerifyNetworksRequest()),
        checks(swarm, identity).TraceNetwork(trace),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(call))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_both_sides_are_asked_and_the_verdict_is_last(swarm: Swarm) -> None:
    service = Service(id=new_id(), spec=service_spec())
    async with agent(swarm) as (fake, node):
        source, target = task_of(service, 1, node), plain_task(node, "c0ffee01", "tool")
        await swarm.create(service, source, target)
        hop = pb.TraceHop(network_id="net1", address="10.0.1.9", endpoint_id=target.id)
        fake.near = pb.TraceSourceResponse(hops=[hop])
        found = await steps(swarm, "web", "tool", 80)
        near, far = fake.asked
        # Tasks have a namespace of their own, plain containers one for all of their places.
        assert (near.sandbox_id, near.target, far.sandbox_id, far.port) == (source.id, "tool", "c0ffee01", 80)
        assert (found[-1].outcome, found[-1].text) == (THROUGH, "goes through to tool (10.0.1.9)")
        fake.far = pb.TraceTargetResponse(steps=[pb.TraceStep(step="socket", outcome=STOP, text="nothing listens")])
        found = await steps(swarm, "c0ff", "web", 80)
        assert fake.asked[-2].sandbox_id == "c0ffee01"
        assert (found[-1].outcome, found[-1].text) == (STOP, "stops: tool: nothing listens")


async def test_a_way_from_outside_begins_at_a_node(swarm: Swarm) -> None:
    async with agent(swarm) as (fake, _node):
        fake.near = pb.TraceSourceResponse(hops=[pb.TraceHop(address="10.255.0.9", endpoint_id="gone", port=80)])
        found = await steps(swarm, "w1", "ingress", 8080)
        assert [(one.sandbox_id, one.target, one.port) for one in fake.asked] == [("", "ingress", 8080)]
        assert found[-1].outcome == THROUGH
        for source, port, code in (("w1", 0, grpc.StatusCode.INVALID_ARGUMENT), ("x", 80, grpc.StatusCode.NOT_FOUND)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await steps(swarm, source, "ingress", port)
            assert refused.value.code() is code


async def test_why_nobody_is_behind_a_service(swarm: Swarm) -> None:
    service, down = Service(id=new_id(), spec=service_spec()), node_at(new_id(), "w2", "127.0.0.1:1", NodeState.DOWN)
    async with agent(swarm) as (fake, node):
        lost, waiting = task_of(service, 1, down), task_of(service, 2, node, TaskState.PENDING)
        await swarm.create(down, service, lost, waiting, plain_task(node, "c0ffee01", "tool"))
        fake.near = pb.TraceSourceResponse(steps=[pb.TraceStep(step="vip", outcome=STOP, text="no backend")])
        found = await steps(swarm, "tool", "web", 80)
    assert found[-1].text == (
        "stops: no backend; web.1 runs no more for all that is known: node w2 is down; web.2 is pending (waits)"
    )


async def test_containers_of_one_name_are_told_apart(swarm: Swarm) -> None:
    one, other = node_at(new_id(), "w1", ""), node_at(new_id(), "w2", "")
    first, second = plain_task(one, "c0ffee01", "tool"), plain_task(other, "c0ffee02", "tool")
    await swarm.create(one, other, first, second, plain_task(one, "c0ffee01", "tool"))
    view = swarm.leader.store.view
    with pytest.raises(InvalidArgument, match="ambiguous"):
        trace_ends.source_of(view, "tool")
    assert trace_ends.source_of(view, "c0ffee01").task.node_id == one.id  # two places, one container
    assert trace_ends.source_of(view, second.id).task.node_id == other.id
    with pytest.raises(NotFound):
        trace_ends.source_of(view, "nosuch")
