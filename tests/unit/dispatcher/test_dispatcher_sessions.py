"""Sessions over real gRPC and mTLS, with a store whose log commits at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import dispatcher_pb2_grpc, types_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.model import (
    Availability,
    Cluster,
    ManagerStatus,
    Network,
    NetworkAttachment,
    NetworkSpec,
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    NodeStatus,
    Service,
    ServiceSpec,
    Task,
    TaskState,
    TaskStatus,
    TunnelKey,
)
from pyswarm_common.rpc import Caller, GuardInterceptor, open_channel
from pyswarm_manager.dispatcher import holds
from pyswarm_manager.dispatcher import term as term_module
from pyswarm_manager.dispatcher.core import heartbeats, reports
from pyswarm_manager.dispatcher.dispatcher import Dispatcher
from pyswarm_manager.dispatcher.servicer import LEADER_KEY, DispatcherServicer
from pyswarm_manager.store.changes import Create, Delete, SetDesired, SetNodeStatus, Update, delete
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Kind

CLUSTER_ID = "c" * 25
NODES = frozenset({Caller.WORKER, Caller.MANAGER})
TABLE = {"/pyswarm.v1.Dispatcher/Session": NODES, "/pyswarm.v1.Dispatcher/LocateImage": NODES}


class ImmediateLog:
    """A Raft of one that commits at once; counts entries."""

    def __init__(self, store: Store) -> None:
        self._store, self.index = store, 0

    async def propose(self, data: bytes) -> SimpleNamespace:
        await asyncio.sleep(0)
        self.index += 1
        return SimpleNamespace(index=self.index, result=self._store.apply(self.index, 1, data))


AUTHORITY = RootAuthority.create(CLUSTER_ID, 1_700_000_000.0)


def identity(node_id: str, role: NodeRole) -> NodeIdentity:
    key = generate_key()
    cert = AUTHORITY.issue(
        make_csr(key), node_id=node_id, cluster_id=CLUSTER_ID, role=role, now=1_790_000_000.0, lifetime_s=1e9
    )
    return NodeIdentity(cert, key_to_pem(key), AUTHORITY.cert_pem)


@dataclass
class Manager:
    """The dispatcher of one manager, served on loopback."""

    store: Store
    log: ImmediateLog
    dispatcher: Dispatcher
    address: str
    leading: asyncio.Task[None] | None = None

    async def lead(self) -> None:
        self.leading = asyncio.create_task(self.dispatcher.run())
        await asyncio.sleep(0)

    async def lose(self) -> None:
        if self.leading is not None:
            self.leading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.leading


@dataclass
class Agent:
    """Speaks Dispatcher.Session as an agent does, and keeps what it was told."""

    node_id: str
    call: Any
    tasks: dict[str, types_pb2.Task] = field(default_factory=dict)
    messages: list[pb.ManagerMessage] = field(default_factory=list)
    acknowledged: int = 0
    sequence: int = 0

    async def receive(self) -> pb.ManagerMessage:
        message = await self.call.read()
        assert isinstance(message, pb.ManagerMessage), "the stream ended"
        self.messages.append(message)
        for task in message.assignments.update_tasks:
            self.tasks[task.id] = task
        for task_id in message.assignments.remove_task_ids:
            del self.tasks[task_id]
        self.acknowledged = max(self.acknowledged, message.status_ack.sequence)
        return message

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.receive()

    async def report(self, **states: TaskState) -> None:
        self.sequence += 1
        batch = pb.TaskStatusBatch(sequence=self.sequence)
        for task_id, state in states.items():
            batch.updates.add(task_id=task_id, status=to_proto(TaskStatus(state=state, timestamp=1.0)))
        await self.call.write(pb.AgentMessage(statuses=batch))


@pytest.fixture
async def manager() -> AsyncIterator[Manager]:
    store = Store(lambda: 1_790_000_000.0)
    log = ImmediateLog(store)
    store.connect(log)
    ids = iter(range(10_000))
    dispatcher = Dispatcher(store, lambda: 1_790_000_000.0, lambda: f"session{next(ids)}", lambda: "192.0.2.7:2377")
    server = grpc.aio.server(interceptors=[GuardInterceptor(TABLE, lambda: CLUSTER_ID)])
    DispatcherServicer(dispatcher).add_to_server(server)
    port = server.add_secure_port("127.0.0.1:0", identity("m1", NodeRole.MANAGER).server_credentials())
    await server.start()
    await store.propose(
        [
            Create(Cluster(id=CLUSTER_ID)),
            Create(Node(id="m1", role=NodeRole.MANAGER, manager_status=ManagerStatus(raft_id=1, address="m1:2377"))),
            Create(Node(id="w1", description=described("w1"))),
            Create(Node(id="w2", description=described("w2"))),
            Create(Network(id="ingress", spec=NetworkSpec(name="ingress", ingress=True))),
            Create(Service(id="svc", spec=ServiceSpec(name="web"))),
        ]
    )
    manager = Manager(store, log, dispatcher, f"127.0.0.1:{port}")
    await manager.lead()
    try:
        yield manager
    finally:
        await manager.lose()
        await server.stop(None)


Connect = Callable[[str], Any]


@pytest.fixture
async def connect(manager: Manager) -> AsyncIterator[Connect]:
    """Opens a node's channel, and closes it after the test."""
    channels: list[grpc.aio.Channel] = []

    def open_session(node_id: str) -> Any:
        channel = open_channel(manager.address, identity(node_id, NodeRole.WORKER), "swarm-manager")
        channels.append(channel)
        return dispatcher_pb2_grpc.DispatcherStub(channel)

    yield open_session
    for channel in channels:
        await channel.close(None)


def described(node_id: str) -> NodeDescription:
    return NodeDescription(hostname=node_id, agent_address=f"{node_id}:7946")


async def start(stub: Any, node_id: str) -> Agent:
    agent = Agent(node_id, stub.Session())
    hello = pb.Hello(description=to_proto(described(node_id)))
    hello.address = "192.0.2.1"
    await agent.call.write(pb.AgentMessage(hello=hello))
    return agent


def a_task(task_id: str, node_id: str) -> Task:
    return Task(
        id=task_id,
        service_id="svc",
        service_name="web",
        slot=1,
        node_id=node_id,
        desired_state=TaskState.RUNNING,
        status=TaskStatus(state=TaskState.ASSIGNED),
    )


async def until(condition: Callable[[], bool]) -> None:
    """For what no message tells of; bounded by the test's own timeout."""
    while not condition():  # noqa: ASYNC110  the store tells its own subscribers only
        await asyncio.sleep(0.005)


async def refusal(agent: Agent) -> tuple[grpc.StatusCode, dict[str, object]]:
    try:
        while await agent.call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
            pass
    except grpc.aio.AioRpcError as error:
        trailers: Any = error.trailing_metadata() or ()
        return error.code(), dict(tuple(pair) for pair in trailers)
    raise AssertionError("the session ended without a refusal")


async def test_a_session_from_hello_to_done(manager: Manager, connect: Connect) -> None:
    agent = await start(connect("w1"), "w1")
    started = (await agent.receive()).started
    assert started.node.id == "w1"
    assert list(started.managers.addresses) == ["m1:2377"]
    assert (started.heartbeat_period_s, started.data_path_port) == (1.0, 4789)
    first = (await agent.receive()).assignments
    assert first.type == pb.Assignments.TYPE_COMPLETE
    await until(lambda: manager.store.view.nodes["w1"].status.state is NodeState.READY)
    assert manager.store.view.nodes["w1"].description.hostname == "w1"

    await manager.store.propose([Create(a_task("t1", "w1"))])
    await agent.until(lambda: "t1" in agent.tasks)
    await agent.report(t1=TaskState.RUNNING)
    await agent.until(lambda: agent.acknowledged == 1)
    assert manager.store.view.tasks["t1"].status.state is TaskState.RUNNING

    await manager.store.propose([SetDesired("t1", TaskState.SHUTDOWN)])
    await agent.until(lambda: agent.tasks["t1"].desired_state == types_pb2.TASK_STATE_SHUTDOWN)
    await agent.report(t1=TaskState.SHUTDOWN)
    await agent.until(lambda: not agent.tasks)
    await manager.store.propose([Delete(Kind.TASK, "t1")])


async def test_statuses_of_other_nodes_tasks_are_passed_over(manager: Manager, connect: Connect) -> None:
    await manager.store.propose([Create(a_task("t1", "w1")), Create(a_task("t2", "w2"))])
    agent = await start(connect("w1"), "w1")
    await agent.report(t2=TaskState.FAILED, unknown=TaskState.RUNNING, t1=TaskState.RUNNING)
    await agent.until(lambda: agent.acknowledged == 1)
    tasks = manager.store.view.tasks
    assert tasks["t1"].status.state is TaskState.RUNNING
    assert tasks["t2"].status.state is TaskState.ASSIGNED


async def test_many_reports_are_one_commit(manager: Manager, connect: Connect) -> None:
    await manager.store.propose([Create(a_task(f"t{i}", "w1")) for i in range(100)])
    agent = await start(connect("w1"), "w1")
    await agent.until(lambda: len(agent.tasks) == 100)
    await until(lambda: manager.store.view.nodes["w1"].status.state is NodeState.READY)
    before = manager.log.index
    for i in range(100):
        await agent.report(**{f"t{i}": TaskState.RUNNING})
    await agent.until(lambda: agent.acknowledged == 100)
    assert all(task.status.state is TaskState.RUNNING for task in manager.store.view.tasks.values())
    assert manager.log.index - before < 50


async def test_a_follower_names_the_leader(manager: Manager, connect: Connect) -> None:
    await manager.lose()
    agent = await start(connect("w1"), "w1")
    code, trailers = await refusal(agent)
    assert (code, trailers[LEADER_KEY]) == (grpc.StatusCode.UNAVAILABLE, "192.0.2.7:2377")


async def test_losing_the_lead_ends_sessions_and_the_next_term_has_them(manager: Manager, connect: Connect) -> None:
    agent = await start(connect("w1"), "w1")
    await agent.receive()
    await agent.receive()
    await manager.lose()
    code, trailers = await refusal(agent)
    assert (code, trailers[LEADER_KEY]) == (grpc.StatusCode.UNAVAILABLE, "192.0.2.7:2377")
    await manager.store.propose([Create(a_task("t1", "w1"))])
    await manager.lead()
    again = await start(connect("w1"), "w1")
    await again.until(lambda: "t1" in again.tasks)


async def test_a_removed_node_is_told_so(manager: Manager, connect: Connect) -> None:
    agent = await start(connect("w1"), "w1")
    await agent.receive()
    await agent.receive()
    await until(lambda: manager.store.view.nodes["w1"].status.state is NodeState.READY)
    await manager.store.propose([delete(manager.store.view.nodes["w1"])])
    assert (await refusal(agent))[0] is grpc.StatusCode.NOT_FOUND
    again = await start(connect("w1"), "w1")
    assert (await refusal(again))[0] is grpc.StatusCode.NOT_FOUND


async def test_a_newer_session_replaces_the_older(manager: Manager, connect: Connect) -> None:
    old = await start(connect("w1"), "w1")
    await old.receive()
    await old.receive()
    new = await start(connect("w1"), "w1")
    await new.receive()
    assert (await refusal(old))[0] is grpc.StatusCode.UNAVAILABLE
    await manager.store.propose([Create(a_task("t1", "w1"))])
    await new.until(lambda: "t1" in new.tasks)
    assert manager.store.view.nodes["w1"].status.state is NodeState.READY


async def test_a_stream_without_hello_is_refused(connect: Connect) -> None:
    agent = Agent("w1", connect("w1").Session())
    await agent.call.write(pb.AgentMessage(heartbeat=pb.Heartbeat()))
    assert (await refusal(agent))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_broken_session_is_suspect_then_down_and_back(
    manager: Manager, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "SUSPECT_GRACE_S", 0.3)
    states: list[NodeState] = []
    manager.store.subscribe(
        lambda index, events: states.extend(
            event.new.status.state for event in events if isinstance(event.new, Node) and event.new.id == "w1"
        )
    )
    agent = await start(connect("w1"), "w1")
    await agent.receive()
    await until(lambda: states == [NodeState.READY])
    agent.call.cancel()
    await until(lambda: states == [NodeState.READY, NodeState.SUSPECT, NodeState.DOWN])
    await start(connect("w1"), "w1")
    await until(lambda: states[-1] is NodeState.READY)


async def test_a_node_that_left_is_down_at_once_and_stays_so(manager: Manager, connect: Connect) -> None:
    agent = await start(connect("w1"), "w1")
    await agent.receive()
    await until(lambda: manager.store.view.nodes["w1"].status.state is NodeState.READY)
    states: list[NodeState] = []
    manager.store.subscribe(
        lambda index, events: states.extend(event.new.status.state for event in events if isinstance(event.new, Node))
    )
    w1 = manager.store.view.nodes["w1"]
    left = replace(w1, status=replace(w1.status, state=NodeState.DOWN, message="left the swarm"))
    term = manager.dispatcher.term
    await manager.store.propose([Update(left)])
    await agent.call.write(pb.AgentMessage(heartbeat=pb.Heartbeat()))
    agent.call.cancel()
    await until(lambda: "w1" not in term._sessions)
    term._writer.observe("w2", lambda node: reports.opened(node, node.description, "192.0.2.2", 1.0))
    await until(lambda: manager.store.view.nodes["w2"].status.state is NodeState.READY)
    assert states == [NodeState.DOWN, NodeState.READY]
    assert manager.store.view.nodes["w1"].status.message == "left the swarm"


async def test_each_heartbeat_is_answered(manager: Manager, connect: Connect) -> None:
    agent = await start(connect("w1"), "w1")
    for _ in range(3):  # its start, what it is to do, whom it is to trust
        await agent.receive()
    for _ in range(3):
        await agent.call.write(pb.AgentMessage(heartbeat=pb.Heartbeat()))
        assert (await agent.receive()).heartbeat_period.period_s == 1.0


async def test_nodes_that_never_come_to_a_new_leader_are_down(
    manager: Manager, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.lose()
    monkeypatch.setattr(heartbeats, "RECONNECT_GRACE_S", 0.2)
    monkeypatch.setattr(heartbeats, "GRACE_PERIODS", 0.3)
    await manager.lead()
    await until(lambda: manager.store.view.nodes["w2"].status.state is NodeState.DOWN)


async def test_a_manager_lost_with_the_old_leader_is_down_sooner(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.lose()
    monkeypatch.setattr(term_module, "SUSPECT_GRACE_S", 0.2)
    monkeypatch.setattr(term_module, "MEMBERS_SETTLE_S", 0.1)
    manager.dispatcher = Dispatcher(
        manager.store, lambda: 1_790_000_000.0, lambda: "s", lambda: None, lambda: frozenset({1})
    )
    await manager.lead()
    nodes = manager.store.view.nodes
    await until(lambda: nodes["m1"].status.state is NodeState.DOWN)
    assert nodes["w1"].status.state is NodeState.UNKNOWN, "workers have their time to find the new leader"


async def test_own_node_and_managers_are_told(manager: Manager, connect: Connect) -> None:
    agent = await start(connect("w1"), "w1")
    await agent.receive()
    await until(lambda: manager.store.view.nodes["w1"].status.state is NodeState.READY)
    w1 = manager.store.view.nodes["w1"]
    await manager.store.propose([Update(replace(w1, spec=replace(w1.spec, role=NodeRole.MANAGER)))])
    await agent.until(lambda: agent.messages[-1].node.spec.role == types_pb2.NODE_ROLE_MANAGER)
    w2 = manager.store.view.nodes["w2"]
    await manager.store.propose([Update(replace(w2, manager_status=ManagerStatus(raft_id=2, address="w2:2377")))])
    await agent.until(lambda: list(agent.messages[-1].managers.addresses) == ["m1:2377", "w2:2377"])


async def test_images_are_located_on_other_nodes(manager: Manager, connect: Connect) -> None:
    stub = connect("w1")
    agent = await start(stub, "w1")
    await agent.receive()
    await agent.call.write(pb.AgentMessage(images=pb.ImageInventory(references=["busybox:latest"])))
    await until(lambda: "busybox:latest" in manager.dispatcher.term._sessions["w1"].images)
    request = pb.LocateImageRequest(reference="busybox:latest")
    assert list((await connect("w2").LocateImage(request)).agent_addresses) == ["w1:7946"]
    assert not (await stub.LocateImage(request)).agent_addresses, "not the asking node itself"


async def test_a_node_may_describe_itself_anew_while_its_session_lasts(manager: Manager, connect: Connect) -> None:
    agent = await start(connect("w1"), "w1")
    await agent.until(lambda: len(agent.messages) == 2)
    changed = replace(described("w1"), tunnel_keys=(TunnelKey(b"k" * 32, 51820, 1),))
    await agent.call.write(pb.AgentMessage(description=to_proto(changed)))
    await until(lambda: manager.store.view.nodes["w1"].description == changed)
    assert manager.store.view.nodes["w1"].status.state is NodeState.READY
    await agent.call.write(pb.AgentMessage(description=to_proto(replace(changed, hostname="w" * 9000))))
    code, _ = await refusal(agent)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_limits_fit_a_change_set() -> None:
    from pyswarm_manager.dispatcher.core.reports import TEXT_LIMIT  # noqa: PLC0415
    from pyswarm_manager.dispatcher.writer import COMMIT_LIMIT  # noqa: PLC0415
    from pyswarm_manager.store.encoding import MAX_CHANGE_SET_BYTES  # noqa: PLC0415

    widest = 4 * 2 * TEXT_LIMIT + 500
    assert COMMIT_LIMIT * max(widest, term_module.HELLO_BYTES_LIMIT + 500) < MAX_CHANGE_SET_BYTES


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is lost for saying nothing: a busy machine may need seconds for what these tests wait for."""
    monkeypatch.setattr(heartbeats.Heartbeats, "expired", lambda self, now: [])


def net_version(agent: Agent) -> int:
    """Of the network's table that it was told of last."""
    told = [table for message in agent.messages for table in message.assignments.networks if table.network_id == "net"]
    return told[-1].version if told else 0


async def acknowledge(agent: Agent, version: int = 0) -> None:
    """The table that it was told of last is in its kernel, or an earlier version of it."""
    done = pb.TablesProgrammed(network_id="net", version=version or net_version(agent))
    await agent.call.write(pb.AgentMessage(tables_programmed=done))


async def catch_up(manager: Manager, *agents: Agent) -> None:
    """Each is told of the latest table, and says that it is in its kernel. All of them are taken for ready before."""
    await until(lambda: all(manager.store.view.nodes[a.node_id].status.state is NodeState.READY for a in agents))
    table = manager.dispatcher.term.tables.table("net")
    assert table is not None
    for agent in agents:
        await agent.until(lambda agent=agent: net_version(agent) == table.version)  # type: ignore[misc]
        await acknowledge(agent)


def on_net(task: Task) -> Task:
    networks = (NetworkAttachment(network_id="net", addresses=(f"10.0.1.{task.id[1:]}/24",)),)
    return replace(task, networks=networks, status=TaskStatus(state=TaskState.RUNNING))


def knows_withdrawn(agent: Agent, task_id: str) -> bool:
    tables = [table for message in agent.messages for table in message.assignments.networks]
    records = [record for table in tables for record in table.endpoints if record.endpoint_id == task_id]
    return any(not record.ready for record in records)


async def two_on_one_network(manager: Manager, connect: Connect) -> tuple[Agent, Agent]:
    """`t1` runs on w1, `t2` on w2; both nodes know both tasks, and have said so."""
    await manager.store.propose([Create(Network(id="net", spec=NetworkSpec(name="net")))])
    await manager.store.propose([Create(on_net(a_task("t1", "w1"))), Create(on_net(a_task("t2", "w2")))])
    agents = (await start(connect("w1"), "w1"), await start(connect("w2"), "w2"))
    await catch_up(manager, *agents)
    await until(lambda: manager.dispatcher.handover.is_told(manager.store.view.tasks["t1"]))
    return agents


async def test_a_task_is_stopped_once_the_last_node_has_let_go_of_it(
    manager: Manager, connect: Connect, patient: None
) -> None:
    first, second = await two_on_one_network(manager, connect)
    before = net_version(second)
    await manager.store.propose([SetDesired("t1", TaskState.SHUTDOWN)])
    for agent in (first, second):
        await agent.until(lambda agent=agent: knows_withdrawn(agent, "t1"))  # type: ignore[misc]
    await acknowledge(first)
    await acknowledge(second, before)  # what it had already
    await second.report(t2=TaskState.RUNNING)
    await second.until(lambda: second.acknowledged == 1)  # so that was read
    assert not manager.dispatcher.handover.is_told(manager.store.view.tasks["t1"])
    assert first.tasks["t1"].desired_state == types_pb2.TASK_STATE_RUNNING
    await acknowledge(second)
    await first.until(lambda: first.tasks["t1"].desired_state == types_pb2.TASK_STATE_SHUTDOWN)


async def test_a_node_that_is_lost_is_not_waited_for(manager: Manager, connect: Connect, patient: None) -> None:
    first, second = await two_on_one_network(manager, connect)
    await manager.store.propose([SetDesired("t1", TaskState.SHUTDOWN)])
    await first.until(lambda: knows_withdrawn(first, "t1"))
    await acknowledge(first)
    second.call.cancel()
    await until(lambda: manager.store.view.nodes["w2"].status.state is NodeState.SUSPECT)
    assert not manager.dispatcher.handover.is_told(manager.store.view.tasks["t1"]), "it may be sending connections"
    await manager.store.propose([SetNodeStatus("w2", NodeStatus(state=NodeState.DOWN))])
    await first.until(lambda: first.tasks["t1"].desired_state == types_pb2.TASK_STATE_SHUTDOWN)


async def test_a_node_that_programs_nothing_is_named_and_then_waited_for_no_longer(
    manager: Manager, connect: Connect, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "LOOK_EVERY_S", 0.02)
    first, second = await two_on_one_network(manager, connect)
    await manager.store.propose([SetDesired("t1", TaskState.SHUTDOWN)])
    await first.until(lambda: knows_withdrawn(first, "t1"))
    await acknowledge(first)
    await first.until(lambda: first.tasks["t1"].desired_state == types_pb2.TASK_STATE_SHUTDOWN)
    said = manager.store.view.tasks["t1"].status
    assert said.state is TaskState.RUNNING
    assert said.message == "waits until node w2 knows that it is no backend any more"
    assert second.tasks["t2"].desired_state == types_pb2.TASK_STATE_RUNNING


async def test_the_deadline_of_its_nodes_drain_ends_the_wait(manager: Manager, connect: Connect, patient: None) -> None:
    first, _ = await two_on_one_network(manager, connect)
    node = manager.store.view.nodes["w1"]
    spec = replace(node.spec, availability=Availability.DRAIN, drain_deadline_s=0.05)
    await manager.store.propose([Update(replace(node, spec=spec, drain_started_at=time.time()))])
    await manager.store.propose([SetDesired("t1", TaskState.SHUTDOWN)])
    await first.until(lambda: first.tasks["t1"].desired_state == types_pb2.TASK_STATE_SHUTDOWN)
    assert not manager.dispatcher.handover.is_told(manager.store.view.tasks["t1"])


async def test_whoever_plans_hears_when_everybody_knows_a_task(
    manager: Manager, connect: Connect, patient: None
) -> None:
    first, second = await two_on_one_network(manager, connect)
    handover, heard = manager.dispatcher.handover, list[str]()
    handover.subscribe(lambda tasks: heard.extend(task.id for task in tasks))
    await manager.store.propose([Create(on_net(a_task("t3", "w1")))])
    await until(lambda: "t3" in manager.store.view.tasks)
    task = manager.store.view.tasks["t3"]
    assert not handover.is_told(task)
    handover.watch(task)
    await catch_up(manager, first, second)
    await until(lambda: bool(heard))
    assert heard == ["t3"]


async def test_a_new_leader_has_no_acknowledgements_and_hears_them_again(
    manager: Manager, connect: Connect, patient: None
) -> None:
    await two_on_one_network(manager, connect)
    handover, heard = manager.dispatcher.handover, list[str]()
    handover.subscribe(lambda tasks: heard.extend(task.id for task in tasks))
    await manager.lose()
    task = manager.store.view.tasks["t1"]
    assert not handover.is_told(task)
    handover.watch(task)  # before the term's tables are there: to be looked at again once they are
    await manager.lead()
    assert heard == ["t1"]
    assert not handover.is_told(task)
    heard.clear()
    handover.watch(task)
    await catch_up(manager, *[await start(connect(node_id), node_id) for node_id in ("w1", "w2")])
    await until(lambda: heard == ["t1"])
    assert handover.is_told(task)
