"""Watches, logs and health, by real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from manager_harness import Swarm, asked, make_identity, new_id, service_spec, worker_node

from pyswarm.v1 import agent_pb2, agent_pb2_grpc, health_pb2, health_pb2_grpc, logs_pb2, logs_pb2_grpc, watch_pb2_grpc
from pyswarm.v1 import watch_pb2 as wpb
from pyswarm_common import errors
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.model import (
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    NodeStatus,
    Service,
    Task,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.api import logs
from pyswarm_manager.api.watch import MAX_MESSAGE_EVENTS, messages
from pyswarm_manager.store import store as store_module
from pyswarm_manager.store.changes import Event, SetTaskStatus

# ---- watch


def watch(swarm: Swarm, **request: Any) -> Any:
    return watch_pb2_grpc.WatchStub(swarm.channel(swarm.leader)).Watch(wpb.WatchRequest(**request))


async def test_a_watch_tells_where_it_starts_and_then_every_change(swarm: Swarm) -> None:
    call = watch(swarm)
    first = await call.read()
    assert first.version == swarm.leader.store.view.index
    assert not first.events
    service = Service(id=new_id(), spec=service_spec())
    await swarm.create(service)
    created = await call.read()
    assert created.version > first.version
    assert created.events[0].action == wpb.CHANGE_ACTION_CREATE
    assert created.events[0].service.id == service.id
    task = Task(id=new_id(), service_id=service.id, slot=1, node_id="n" * 25)
    await swarm.create(task)
    assert (await call.read()).events[0].task.id == task.id
    await swarm.leader.store.propose([SetTaskStatus(task.id, TaskStatus(state=TaskState.RUNNING))])
    assert (await call.read()).events[0].action == wpb.CHANGE_ACTION_UPDATE
    call.cancel()
    again = watch(swarm, resume_from=created.version)
    assert (await again.read()).version == created.version
    assert (await again.read()).events[0].task.id == task.id
    again.cancel()


async def test_a_watch_of_one_service_sees_only_it(swarm: Swarm) -> None:
    mine, other = (Service(id=new_id(), spec=service_spec(name=name)) for name in ("mine", "other"))
    call = watch(swarm, service_ids=[mine.id], kinds=[wpb.OBJECT_KIND_SERVICE, wpb.OBJECT_KIND_TASK])
    await call.read()
    await swarm.create(other)
    await swarm.create(worker_node(new_id(), "w"))
    await swarm.create(Task(id="t1", service_id=other.id, slot=1))
    await swarm.create(mine, Task(id="t2", service_id=mine.id, slot=1))
    seen = await call.read()
    assert [event.WhichOneof("object") for event in seen.events] == ["service", "task"]
    assert seen.events[1].task.id == "t2"
    call.cancel()


async def test_a_watch_hides_the_root_key(swarm: Swarm) -> None:
    call = watch(swarm, resume_from=1, kinds=[wpb.OBJECT_KIND_CLUSTER])
    await call.read()
    cluster = (await call.read()).events[0].cluster
    assert cluster.root_ca_cert
    assert not cluster.root_ca_key
    call.cancel()


async def test_a_watch_that_is_too_old_must_begin_again(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "HISTORY_BATCHES", 2)
    for number in range(5):
        await swarm.create(worker_node(new_id(), f"w{number}"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in watch(swarm, resume_from=1):
            pass
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
    with pytest.raises(errors.InvalidArgument, match="unknown kind"):
        await asked(watch(swarm, kinds=[99]).read())


def test_a_large_commit_is_cut_so_that_none_of_it_can_be_lost() -> None:
    count = MAX_MESSAGE_EVENTS + 5
    events = (Event(None, worker_node(f"{number:025}", "w")) for number in range(count))
    first, second = messages(10, events, 5.0, {}, for_admin=True)
    assert (first.version, second.version) == (9, 10)
    assert len(first.events) + len(second.events) == count


# ---- health


async def test_health_without_a_leader_and_with_one(swarm3: Swarm) -> None:
    leader = swarm3.leader
    health = health_pb2_grpc.HealthStub(swarm3.channel(leader))
    answer = await health.GetHealth(health_pb2.GetHealthRequest())
    assert answer.node_id == leader.node_id
    assert answer.cluster_id == "c" * 25
    assert answer.leader_raft_id == answer.raft_id == leader.raft_id
    assert answer.commit_index >= answer.applied_index > 0
    assert leader.raft.commit_index == answer.commit_index
    assert [member.leader for member in answer.members].count(True) == 1
    survivor = swarm3.followers[0]
    for manager in [manager for manager in swarm3.managers if manager is not survivor]:
        await swarm3.kill(manager)
    await swarm3.wait(lambda: survivor.raft.leader_id is None)
    health = health_pb2_grpc.HealthStub(swarm3.channel(survivor))
    answer = await health.GetHealth(health_pb2.GetHealthRequest())
    assert answer.leader_raft_id == 0
    assert len(answer.members) == 3


# ---- logs


class FakeAgent(agent_pb2_grpc.AgentServicer):
    """Gives the lines it was told; follows until it is closed."""

    def __init__(self) -> None:
        self.lines: dict[str, list[tuple[int, str]]] = {}
        self.requests: list[agent_pb2.ReadTaskLogsRequest] = []

    async def ReadTaskLogs(
        self, request: agent_pb2.ReadTaskLogsRequest, context: Any
    ) -> AsyncIterator[logs_pb2.LogMessage]:
        self.requests.append(request)
        if request.task_id not in self.lines:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such task")
        for second, text in self.lines[request.task_id]:
            if second > request.since.seconds:
                message = logs_pb2.LogMessage(stream=logs_pb2.LogMessage.STREAM_STDOUT, data=text.encode())
                message.timestamp.seconds = second
                yield message
        if request.follow:
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def agent(identity: NodeIdentity) -> AsyncIterator[tuple[FakeAgent, str]]:
    fake = FakeAgent()
    server = grpc.aio.server()
    agent_pb2_grpc.add_AgentServicer_to_server(fake, server)
    port = server.add_secure_port("127.0.0.1:0", identity.server_credentials())
    await server.start()
    try:
        yield fake, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def node_at(node_id: str, name: str, address: str, state: NodeState = NodeState.READY) -> Node:
    return Node(
        id=node_id,
        description=NodeDescription(hostname=name, agent_address=address),
        status=NodeStatus(state=state),
    )


def task_of(service: Service, slot: int, node: Node, state: TaskState = TaskState.RUNNING) -> Task:
    return Task(id=f"t{slot}".ljust(25, "0"), service_id=service.id, service_name=service.spec.name, slot=slot,
                node_id=node.id, desired_state=TaskState.RUNNING, status=TaskStatus(state=state))  # fmt: skip


def read_logs(swarm: Swarm, target: str, **options: Any) -> Any:
    stub = logs_pb2_grpc.LogsStub(swarm.channel(swarm.leader))
    return stub.ReadLogs(logs_pb2.ReadLogsRequest(target=target, **options))


async def test_logs_of_several_tasks_come_in_order_of_time_and_say_what_is_missing(swarm: Swarm) -> None:
    service = Service(id=new_id(), spec=service_spec())
    async with (
        agent(make_identity(swarm.root, "a" * 25, NodeRole.WORKER)) as (one, address1),
        agent(make_identity(swarm.root, "b" * 25, NodeRole.WORKER)) as (two, address2),
    ):
        nodes = [node_at("a" * 25, "w1", address1), node_at("b" * 25, "w2", address2),
                 node_at("d" * 25, "w3", "127.0.0.1:1", NodeState.DOWN)]  # fmt: skip
        tasks = [task_of(service, slot, node) for slot, node in enumerate(nodes, 1)]
        waiting = task_of(service, 4, nodes[0], TaskState.PENDING)
        await swarm.create(service, *nodes, *tasks, waiting)
        one.lines[tasks[0].id] = [(10, "a"), (30, "c"), (30, "d")]
        two.lines[tasks[1].id] = [(20, "b"), (40, "e")]
        seen = [message async for message in read_logs(swarm, "web", tail=7)]
    lines = [message for message in seen if message.stream == logs_pb2.LogMessage.STREAM_STDOUT]
    assert b"".join(message.data for message in lines) == b"abcde"
    assert (lines[0].task_name, lines[0].node_hostname) == ("web.1", "w1")
    (warning,) = [message for message in seen if message.stream == logs_pb2.LogMessage.STREAM_WARNING]
    assert b"web.3" in warning.data
    assert b"node w3 is down" in warning.data
    assert one.requests[0].tail == 7


async def test_logs_of_ended_tasks_are_read_and_the_oldest_left_out(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_TASKS_PER_NODE", 2)
    service = Service(id=new_id(), spec=service_spec())
    async with agent(make_identity(swarm.root, "a" * 25, NodeRole.WORKER)) as (fake, address):
        node = node_at("a" * 25, "w1", address)
        runs = task_of(service, 1, node)
        await swarm.create(service, node, runs)
        ended = [task_of(service, slot, node, TaskState.FAILED) for slot in (2, 3, 4)]
        for task in ended:  # one after the other: each is younger than the one before
            await swarm.create(task)
        fake.lines = {task.id: [(10 - task.slot, str(task.slot))] for task in (runs, *ended)}
        seen = [message async for message in read_logs(swarm, "web")]
        following = read_logs(swarm, "web", follow=True)
        followed = [await following.read() for _ in range(3)]
        following.cancel()
    assert seen[0].data == b"2 tasks are left out: 500 at most are read at once, 2 of one node: ask for single tasks\n"
    assert [message.data for message in seen[1:]] == [b"4", b"1"]
    assert followed[0].data == seen[0].data
    assert {message.data for message in followed[1:]} == {b"4", b"1"}, "the one that runs, and the latest that ended"


async def test_logs_of_one_task_and_of_nothing(swarm: Swarm) -> None:
    service = Service(id=new_id(), spec=service_spec())
    async with agent(make_identity(swarm.root, "a" * 25, NodeRole.WORKER)) as (fake, address):
        node = node_at("a" * 25, "w1", address)
        task, gone = task_of(service, 1, node), task_of(service, 2, node, TaskState.COMPLETE)
        await swarm.create(service, node, task, gone)
        fake.lines[task.id] = [(1, "x"), (2, "y")]
        seen = [message.data async for message in read_logs(swarm, task.id)]
        assert seen == [b"x", b"y"]
        # Its container is gone, and its log with it: no reason to warn.
        assert [message async for message in read_logs(swarm, gone.id)] == []
    with pytest.raises(errors.NotFound, match="no such task or service: nosuch"):
        await asked(read_logs(swarm, "nosuch").read())


async def test_following_picks_up_new_tasks_and_broken_streams(swarm: Swarm) -> None:
    service = Service(id=new_id(), spec=service_spec())
    identity = make_identity(swarm.root, "a" * 25, NodeRole.WORKER)
    async with contextlib.AsyncExitStack() as stack:
        fake, address = await stack.enter_async_context(agent(identity))
        node = node_at("a" * 25, "w1", address)
        first, second = task_of(service, 1, node), task_of(service, 2, node)
        fake.lines[first.id], fake.lines[second.id] = [(1, "x")], [(2, "y")]
        await swarm.create(service, node, first)
        call = read_logs(swarm, "web", follow=True)
        assert (await call.read()).data == b"x"
        await swarm.create(second)
        line = await call.read()
        assert (line.data, line.task_name) == (b"y", "web.2")
        await stack.aclose()
        warnings = {(await call.read()).task_name for _ in range(2)}
        assert warnings == {"web.1", "web.2"}
        call.cancel()
