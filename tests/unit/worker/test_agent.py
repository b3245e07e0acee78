"""The agent as managers and users see it: a real session over mTLS, a fake host underneath, state on disk."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from msgspec.structs import replace
from worker_fakes import NODE, FakeImages, FakeManager, FakeOverlay, FakeRuntime, eventually, make_identity, make_task

from pyswarm.v1 import agent_pb2, agent_pb2_grpc, types_pb2
from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common import errors
from pyswarm_common.codec import to_proto
from pyswarm_common.identity import NODE_SERVER_NAME, NodeIdentity, RootAuthority
from pyswarm_common.model import (
    ContainerStatus,
    HealthCheck,
    Node,
    NodeDescription,
    NodeRole,
    PortConfig,
    PublishMode,
    TaskState,
    TaskStatus,
)
from pyswarm_common.rpc import open_channel
from pyswarm_overlay.types import IngressPort, NetworkTable
from pyswarm_runtime.types import Healthcheck, ImageConfig
from pyswarm_worker import inquiries, known_managers, networks, session
from pyswarm_worker.agent import Agent
from pyswarm_worker.settings import AgentConfig, AgentHooks
from pyswarm_worker.store import AgentStore, put_managers

NETWORK = "w" * 25


class Fixture:
    """One node with its fakes, and one manager."""

    def __init__(self, root: RootAuthority, directory: Path) -> None:
        self.root = root
        self.directory = directory
        self.identity = make_identity(root, NodeRole.WORKER)
        self.manager = FakeManager(make_identity(root, NodeRole.MANAGER, "m" * 25))
        self.runtime, self.images, self.overlay = FakeRuntime(), FakeImages("busybox"), FakeOverlay()
        self.nodes: list[Node] = []
        self.managers: tuple[str, ...] = ()
        self.removal: Callable[[], Awaitable[str]] | None = None

    def unacknowledged(self) -> int:
        """Statuses that the next daemon would send again."""
        with contextlib.closing(sqlite3.connect(self.directory / "agent.db")) as database:
            (count,) = database.execute("SELECT count(*) FROM statuses WHERE NOT acknowledged").fetchone()
            return int(count)

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        """A run of the daemon: opened, run, closed."""
        config = AgentConfig(
            state_dir=self.directory,
            address="10.1.1.1",
            listen_address="127.0.0.1:0",
            managers=self.managers or (self.manager.address,),
        )
        hooks = AgentHooks(
            identity=lambda: self.identity,
            describe=lambda: NodeDescription(hostname="n1", agent_address="127.0.0.1:7946"),
            local_manager=lambda: None,
            on_node=self.nodes.append,
            on_data_path_port=lambda port: None,
            removal=self.removal,
        )
        agent = await Agent.open(config, hooks, self.runtime, self.images, self.overlay)
        run = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            await agent.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Fixture]:
    fixture = Fixture(RootAuthority.create("c" * 25, time.time()), tmp_path)
    await fixture.manager.start()
    yield fixture
    await fixture.manager.stop()


def table(version: int, *endpoints: pb.EndpointRecord, from_version: int | None = None) -> pb.NetworkTable:
    network = types_pb2.Network(id=NETWORK, vni=4097, subnets=["10.0.1.0/24"], spec=types_pb2.NetworkSpec(name="web"))
    if from_version is None:
        return pb.NetworkTable(network_id=NETWORK, complete=True, version=version, network=network, endpoints=endpoints)
    return pb.NetworkTable(network_id=NETWORK, from_version=from_version, version=version, endpoints=endpoints)


async def test_a_task_runs_and_ends(node: Fixture) -> None:
    task = make_task()
    async with node.agent():
        await eventually(lambda: node.manager.hello is not None)
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
        (state,) = node.runtime.states.values()
        assert state.config.name == f"web.1.{task.id}"
        assert state.config.netns_path == f"/ns/{task.id}"
        node.runtime.exit(state.id, 3)
        await eventually(lambda: node.manager.state_of(task) is TaskState.FAILED)
        assert node.manager.statuses[task.id].err == "task: non-zero exit (3)"
        assert node.overlay.sandboxes == {}
        assert list(node.runtime.states) == [state.id]  # kept for its logs
        node.manager.assign(remove=[task.id])
        await eventually(lambda: not node.runtime.states)
    assert node.manager.hello is not None
    assert node.manager.hello.address == "10.1.1.1"
    assert node.manager.states[task.id] == sorted(node.manager.states[task.id])


async def test_a_ready_task_waits_until_it_is_wanted(node: Fixture) -> None:
    async with node.agent():
        node.manager.assign(make_task(desired=TaskState.READY))
        await eventually(lambda: node.manager.state_of(make_task()) is TaskState.READY)
        assert [state.status for state in node.runtime.states.values()] == ["created"]
        node.manager.assign(make_task())
        await eventually(lambda: node.manager.state_of(make_task()) is TaskState.RUNNING)


async def test_host_ports_are_published_when_the_task_starts(node: Fixture) -> None:
    """Until then its predecessor may serve at them."""
    port = PortConfig(target_port=80, published_port=8080, publish_mode=PublishMode.HOST)
    task = replace(make_task(), ports=(port,))
    async with node.agent():
        node.manager.assign(replace(task, desired_state=TaskState.READY))
        await eventually(lambda: node.manager.state_of(task) is TaskState.READY)
        assert node.overlay.sandboxes[task.id].host_ports == ()
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
        assert [found.published for found in node.overlay.sandboxes[task.id].host_ports] == [8080]


@pytest.mark.parametrize("fails", ["attach", "start", "image"])
async def test_what_cannot_be_started_leaves_nothing(node: Fixture, fails: str) -> None:
    task = make_task(image="busybox" if fails != "image" else "nothere")
    node.overlay.attach_error = errors.Exhausted("no gateway address is free") if fails == "attach" else None
    node.runtime.start_error = errors.InvalidArgument("exec: not found") if fails == "start" else None
    reasons = {"attach": "no gateway address is free", "start": "exec: not found", "image": "No such image: nothere"}
    async with node.agent():
        node.manager.assign(task)
        await eventually(lambda: task.id in node.manager.statuses and node.manager.statuses[task.id].state.is_terminal)
        expected = TaskState.FAILED if fails == "start" else TaskState.REJECTED
        assert node.manager.state_of(task) is expected
        assert node.manager.statuses[task.id].err.startswith(reasons[fails])
        assert (node.runtime.states, node.overlay.sandboxes) == ({}, {})


async def test_a_restarted_daemon_takes_its_containers_up_again(node: Fixture) -> None:
    runs, ends, goes = (make_task(number) for number in (1, 2, 3))
    async with node.agent():
        node.manager.assign(runs, ends, goes, tables=[table(4)])
        await eventually(lambda: all(node.manager.state_of(task) is TaskState.RUNNING for task in (runs, ends, goes)))
        await eventually(lambda: not node.unacknowledged())
    containers = {state.config.labels["com.pyswarm.task.id"]: state.id for state in node.runtime.states.values()}
    node.runtime.exit(containers[ends.id], 0)
    await node.manager.stop()
    port = int(node.manager.address.rpartition(":")[2])
    node.overlay.tables.clear()
    node.manager.states.clear()
    async with node.agent():
        assert node.overlay.tables[NETWORK].version == 4  # without any manager
        assert node.runtime.states[containers[runs.id]].status == "running"
        await node.manager.start(port)
        # The new session's complete assignments no longer name the third.
        node.manager.complete.update_tasks.extend([to_proto(runs), to_proto(ends)])
        node.manager.complete.networks.append(table(4))
        await eventually(lambda: node.manager.state_of(ends) is TaskState.COMPLETE)
        await eventually(lambda: containers[goes.id] not in node.runtime.states)
        assert node.runtime.states[containers[runs.id]].status == "running"
        assert runs.id not in node.manager.states  # nothing new to say of it
    assert sorted(node.overlay.sandboxes) == [runs.id]


async def test_an_exit_that_was_not_told_is_found(node: Fixture) -> None:
    task = make_task()
    async with node.agent():
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
        node.runtime.overflow()
        node.runtime.exit("c0", 7)  # nobody listens at this moment
        await eventually(lambda: node.manager.state_of(task) is TaskState.FAILED)


async def test_a_task_whose_image_has_gone_runs_on_after_a_restart(node: Fixture) -> None:
    task = make_task()
    async with node.agent():
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
    node.images.manifests.clear()
    node.manager.complete.update_tasks.append(to_proto(task))
    async with node.agent():
        await eventually(lambda: node.manager.sessions == 2)
        node.runtime.exit("c0", 0)
        await eventually(lambda: node.manager.state_of(task) is TaskState.COMPLETE)


async def test_a_container_that_runs_on_after_its_task_has_ended_is_removed(node: Fixture) -> None:
    task = make_task()
    async with node.agent():
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
        node.runtime.exit("c0", 1)
        await eventually(lambda: node.manager.state_of(task) is TaskState.FAILED)
    node.runtime._set("c0", status="running")
    node.manager.complete.update_tasks.append(to_proto(task))
    async with node.agent():
        await eventually(lambda: not node.runtime.states)


async def test_what_an_ended_task_left_stays_until_the_task_is_gone(node: Fixture) -> None:
    """Across a restart of the daemon, and without the secrets that were put for it."""
    task = make_task()
    async with node.agent():
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
        secrets = node.directory / "task-files" / task.id
        secrets.mkdir(parents=True)
        node.runtime.exit("c0", 3)
        await eventually(lambda: node.manager.state_of(task) is TaskState.FAILED)
        assert not secrets.exists()
    node.manager.states.clear()
    ended = replace(task, status=node.manager.statuses[task.id], desired_state=TaskState.SHUTDOWN)
    node.manager.complete.update_tasks.append(to_proto(ended))
    async with node.agent() as agent:
        await eventually(lambda: node.manager.sessions == 2)
        assert agent.tasks.container_of(task.id) == "c0", "its log can be read"
        node.manager.assign(ended)
        node.manager.assign(remove=[task.id])
        await eventually(lambda: task.id not in agent.tasks)
        assert (node.runtime.states, node.overlay.sandboxes) == ({}, {})
    # The restart may have come before the first report was acknowledged: then it is sent once more, as it was.
    assert node.manager.states.get(task.id, []) in ([], [TaskState.FAILED]), "there was nothing new to report"


async def test_an_agent_that_lost_its_state_does_not_run_an_ended_task_again(node: Fixture) -> None:
    known = TaskStatus(state=TaskState.COMPLETE, container=ContainerStatus(container_id="c0"))
    ended = replace(make_task(1), status=known)
    node.manager.complete.update_tasks.append(to_proto(ended))
    async with node.agent() as agent:
        node.manager.assign(make_task(2))
        await eventually(lambda: node.manager.state_of(make_task(2)) is TaskState.RUNNING)
        assert ended.id in agent.tasks
        assert len(node.runtime.states) == 1
        node.manager.assign(remove=[ended.id])
        await eventually(lambda: ended.id not in agent.tasks)
    assert ended.id not in node.manager.states


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_agent_that_believes_an_ended_task_to_run_stops_it(node: Fixture, restarted: bool) -> None:
    """Its disk was put back to an older copy."""
    task = make_task()
    known = TaskStatus(state=TaskState.COMPLETE, container=ContainerStatus(container_id="c0"))
    ended = replace(task, status=known, desired_state=TaskState.COMPLETE)
    async with node.agent() as agent:
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
        if not restarted:
            node.manager.assign(ended)
            await eventually(lambda: node.manager.state_of(task) is TaskState.SHUTDOWN)
            assert task.id in agent.tasks
    node.manager.complete.update_tasks.append(to_proto(ended))
    async with node.agent() as agent:
        await eventually(lambda: all(state.status == "exited" for state in node.runtime.states.values()))
        assert task.id in agent.tasks


async def test_a_container_without_a_task_is_removed(node: Fixture) -> None:
    async with node.agent():
        node.manager.assign(make_task())
        await eventually(lambda: node.manager.state_of(make_task()) is TaskState.RUNNING)
    with contextlib.closing(sqlite3.connect(node.directory / "agent.db")) as database:
        database.execute("DELETE FROM tasks")
        database.commit()
    await node.manager.stop()
    async with node.agent():
        await eventually(lambda: not node.runtime.states)
        assert node.overlay.sandboxes == {}


async def test_statuses_are_sent_again_until_they_are_acknowledged(node: Fixture) -> None:
    task = make_task()
    node.manager.acknowledges = False
    async with node.agent():
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
    node.manager.statuses.clear()
    node.manager.acknowledges = True
    node.manager.complete.update_tasks.append(to_proto(task))
    async with node.agent():
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)


async def test_the_leader_is_found_through_a_follower_and_after_its_loss(node: Fixture) -> None:
    other = FakeManager(make_identity(node.root, NodeRole.MANAGER, "o" * 25))
    await other.start()
    other.leader = node.manager.address
    node.managers = (other.address, node.manager.address)
    try:
        async with node.agent() as agent:
            await eventually(lambda: node.manager.sessions == 1)
            assert other.sessions == 0
            node.manager.outgoing.put_nowait(
                pb.ManagerMessage(managers=pb.ManagerList(addresses=[node.manager.address, other.address]))
            )
            await eventually(lambda: agent.managers == (node.manager.address, other.address))
            other.leader = ""
            await node.manager.stop()
            await eventually(lambda: other.sessions == 1)
    finally:
        await other.stop()


async def test_a_removed_node_stops_its_tasks_and_says_so(node: Fixture) -> None:
    async with node.agent() as agent:
        node.manager.assign(make_task())
        await eventually(lambda: node.manager.state_of(make_task()) is TaskState.RUNNING)
        node.manager.refusal = (grpc.StatusCode.NOT_FOUND, f"node {NODE} not found")
        node.manager.outgoing.put_nowait(None)
        await eventually(lambda: not node.runtime.states)
        assert "removed from its cluster" in agent.error


async def test_a_removed_node_is_sure_of_it_although_followers_only_say_that_they_do_not_lead(node: Fixture) -> None:
    follower = FakeManager(make_identity(node.root, NodeRole.MANAGER, "f" * 25))
    follower.refusal = (grpc.StatusCode.UNAVAILABLE, "this manager does not lead the swarm")
    await follower.start()
    node.managers = (node.manager.address, follower.address)
    node.manager.refusal = (grpc.StatusCode.NOT_FOUND, f"node {NODE} not found")
    try:
        async with node.agent() as agent:
            await eventually(lambda: agent.is_removed)
    finally:
        await follower.stop()


async def test_a_node_that_no_manager_lets_in_asks_whether_it_was_removed(
    node: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By TLS it hears nothing: its certificate is of a root that has been replaced."""
    monkeypatch.setattr(session, "_ASK_AFTER_S", 0.1)
    answers = ["", "n1 was removed"]

    async def removal() -> str:
        return answers.pop(0)

    node.removal, node.managers = removal, ("127.0.0.1:1",)
    async with node.agent() as agent:
        await eventually(lambda: agent.is_removed)
        assert "removed from its cluster: leave it, then join again (n1 was removed)" in agent.error
    assert not answers


async def test_heartbeats_inventory_and_tables(node: Fixture) -> None:
    async with node.agent():
        await eventually(lambda: node.manager.heartbeats >= 2)
        backend = pb.EndpointRecord(
            endpoint_id="t2",
            name="web.2.t2",
            addresses=["10.0.1.6"],
            node_address="192.168.0.2",
            service_id="s",
            ready=True,
        )
        node.manager.assign(tables=[table(4), table(5, backend, from_version=4)])
        node.manager.assign(tables=[table(9, from_version=8)])

        def said(kind: str) -> list[pb.AgentMessage]:
            return [message for message in node.manager.received if message.WhichOneof("message") == kind]

        await eventually(lambda: said("resync_network_id"))
        assert [message.tables_programmed.version for message in said("tables_programmed")] == [4, 5]
        assert [list(message.images.references) for message in said("images")] == [["busybox:latest"]]
        assert node.overlay.deltas[0].upsert_endpoints[0].addresses == ("10.0.1.6",)


async def test_published_ports_lead_to_the_ready_endpoints(node: Fixture) -> None:
    ready = pb.EndpointRecord(
        endpoint_id="t1", addresses=["10.0.0.5"], node_address="192.168.0.2", service_id="s", ready=True
    )
    other = pb.EndpointRecord(endpoint_id="t2", addresses=["10.0.0.6"], node_address="192.168.0.3", service_id="s")
    port = pb.IngressPort(service_id="s", published_port=8080, target_port=80)
    node.manager.complete.networks.append(table(1, ready, other))
    node.manager.complete.ingress.CopyFrom(
        pb.IngressTable(version=1, node_addresses=["10.0.0.2/24"], network_id=NETWORK, ports=[port])
    )
    async with node.agent():
        await eventually(lambda: node.overlay.ingress[1])
        addresses, (programmed,) = node.overlay.ingress
        assert addresses == ("10.0.0.2/24",)
        assert [backend.ingress_addresses for backend in programmed.backends] == [("10.0.0.5",)]


async def test_a_published_port_that_another_program_has_is_taken_when_it_is_free(
    node: Fixture, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "_RETRY_S", 0.01)
    caplog.set_level("INFO")
    ports = [pb.IngressPort(service_id="s", published_port=number, target_port=80) for number in (8080, 8081)]
    node.manager.complete.ingress.CopyFrom(pb.IngressTable(version=1, node_addresses=["10.0.0.2/24"], ports=ports))
    node.overlay.taken_ports.add(8080)
    calls = 0
    set_ingress = node.overlay.set_ingress

    async def counted(addresses: tuple[str, ...], ports: tuple[IngressPort, ...]) -> None:
        nonlocal calls
        calls += 1
        await set_ingress(addresses, ports)

    monkeypatch.setattr(node.overlay, "set_ingress", counted)
    async with node.agent():
        await eventually(lambda: calls > 3)
        assert [port.published_port for port in node.overlay.ingress[1]] == [8081]
        said = [record.message for record in caplog.records if "8080/tcp is already allocated" in record.message]
        assert len(said) == 1
        node.overlay.taken_ports.clear()
        await eventually(lambda: len(node.overlay.ingress[1]) == 2)
        await eventually(lambda: "all published ports work now" in caplog.text)
        tried = calls
        await asyncio.sleep(0.05)
        assert calls == tried  # and it rests


async def test_a_network_that_only_the_kernel_knows_is_removed(node: Fixture) -> None:
    """The daemon ended after it had taken the network off its disk, and before it was gone."""
    stale = NetworkTable(network_id="o" * 25, name="old", vni=4098, subnets=("10.0.2.0/24",))
    node.overlay.tables[stale.network_id] = stale
    node.manager.complete.networks.append(table(1))
    async with node.agent():
        await eventually(lambda: list(node.overlay.tables) == [NETWORK])


async def test_a_network_in_use_is_removed_after_its_last_task(node: Fixture) -> None:
    task = make_task()
    attached = to_proto(task)
    attached.networks.add(network_id=NETWORK, addresses=["10.0.1.5/24"])
    node.manager.complete.update_tasks.append(attached)
    node.manager.complete.networks.append(table(1))
    async with node.agent():
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
        message = pb.Assignments(
            type=pb.Assignments.TYPE_INCREMENTAL, remove_task_ids=[task.id], remove_network_ids=[NETWORK]
        )
        node.manager.outgoing.put_nowait(pb.ManagerMessage(assignments=message))
        await eventually(lambda: not node.overlay.tables)
        assert node.overlay.sandboxes == {}


@pytest.mark.parametrize("source", ["service", "image"])
async def test_running_means_healthy(node: Fixture, source: str) -> None:
    task = to_proto(make_task())
    if source == "service":
        check = HealthCheck(test=("CMD", "true"), interval_s=0.01, retries=2)
        task.spec.container.healthcheck.CopyFrom(to_proto(check))
    else:
        node.images.config = ImageConfig(healthcheck=Healthcheck(test=("CMD-SHELL", "x"), interval_s=0.01, retries=2))
    node.runtime.healthy = False
    node.manager.complete.update_tasks.append(task)
    async with node.agent():
        await eventually(lambda: node.manager.state_of(make_task()) is TaskState.FAILED)
        assert TaskState.RUNNING not in node.manager.states[task.id]
        assert node.manager.statuses[task.id].err == "unhealthy container: not well"


async def test_an_image_comes_from_a_peer_that_has_it(node: Fixture, tmp_path: Path) -> None:
    peer = Fixture(node.root, tmp_path / "peer")
    peer.identity = make_identity(node.root, NodeRole.WORKER, "p" * 25)
    peer.images.manifests["app:latest"] = b"the manifest"
    peer.images.blobs = {"cfg": b"config", "layer": b"0123456789"}
    peer.managers = ("127.0.0.1:1",)  # it serves without a manager
    async with peer.agent() as other, node.agent():
        node.manager.holders = ["127.0.0.1:1", f"127.0.0.1:{other.port}"]
        node.manager.assign(make_task(image="app"))
        await eventually(lambda: node.manager.state_of(make_task()) is TaskState.RUNNING)
    assert node.images.blobs == peer.images.blobs
    assert node.images.manifests["app:latest"] == b"the manifest"


async def test_a_node_whose_managers_are_all_gone_asks_another_where_there_are_some(
    node: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_managers, "LAST_RESORT_S", 0.0)
    monkeypatch.setattr(inquiries, "PAUSE_S", 0.01)
    peer = Fixture(node.root, tmp_path / "peer")
    peer.identity = make_identity(node.root, NodeRole.WORKER, "p" * 25)
    peer.managers = (node.manager.address,)
    async with peer.agent() as other:
        await eventually(lambda: node.manager.sessions == 1)
        store = await AgentStore.open(node.directory / "agent.db")
        await store.write([put_managers(["127.0.0.1:1"], informants=[f"127.0.0.1:{other.port}"])])
        await store.close()
        async with node.agent() as agent:
            await eventually(lambda: node.manager.sessions == 2 and agent.is_connected)


def as_role(fixture: Fixture, role: NodeRole) -> NodeIdentity:
    return make_identity(fixture.root, role, "x" * 25)


LOGS: Callable[[str], agent_pb2.ReadTaskLogsRequest] = lambda task_id: agent_pb2.ReadTaskLogsRequest(task_id=task_id)  # noqa: E731


async def test_logs_are_for_managers_only(node: Fixture) -> None:
    task = make_task()
    async with node.agent() as agent:
        node.manager.assign(task)
        await eventually(lambda: node.manager.state_of(task) is TaskState.RUNNING)
        address = f"127.0.0.1:{agent.port}"
        async with open_channel(address, as_role(node, NodeRole.MANAGER), NODE_SERVER_NAME) as channel:
            messages = [message async for message in agent_pb2_grpc.AgentStub(channel).ReadTaskLogs(LOGS(task.id))]
        assert [(m.data, m.task_name, m.node_hostname) for m in messages] == [(b"hello from c0\n", "web.1", "n1")]
        async with open_channel(address, as_role(node, NodeRole.WORKER), NODE_SERVER_NAME) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                _ = [message async for message in agent_pb2_grpc.AgentStub(channel).ReadTaskLogs(LOGS(task.id))]
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
