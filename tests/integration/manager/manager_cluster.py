"""Real manager processes on loopback, made and joined as the daemon does it, and agents that only pretend to run tasks.

Used by the tests beside it and by `bench/manager_writes.py`. Everything lives in one temporary directory; `close` ends
every process it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import grpc
from grpc_health.v1 import health_pb2 as health_check_pb2
from grpc_health.v1 import health_pb2_grpc as health_check_pb2_grpc

from pyswarm.v1 import (
    ca_pb2,
    control_pb2,
    control_pb2_grpc,
    dispatcher_pb2,
    dispatcher_pb2_grpc,
    health_pb2,
    health_pb2_grpc,
    types_pb2,
)
from pyswarm_common.codec import to_proto
from pyswarm_common.identity import JoinToken, NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import (
    Cluster,
    JoinTokens,
    ManagerStatus,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    Resources,
    TaskState,
    TaskStatus,
)
from pyswarm_common.rpc import open_channel, open_local_channel
from pyswarm_manager.bootstrap import Bootstrap
from pyswarm_manager.config import ManagerConfig, ManagerPaths
from pyswarm_node import child

START_TIMEOUT_S = 30.0
C = TypeVar("C", bound="ManagerCluster")


def new_id() -> str:
    return id_from_bits(secrets.randbits(128))


def free_port_pair() -> int:
    """A port of loopback such that it and the next are free."""
    while True:
        with contextlib.ExitStack() as stack:
            first, second = (stack.enter_context(socket.socket()) for _ in range(2))
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


class ManagerProcess:
    """One `python -m pyswarm_manager`."""

    def __init__(self, name: str, root: Path, port: int) -> None:
        self.name = name
        self.address = f"127.0.0.1:{port}"
        self.join_url = f"https://127.0.0.1:{port + 1}/pyswarm.v1.CA"
        self.paths = ManagerPaths(root / name, root / f"{name}.run")
        self.log = root / f"{name}.log"
        self.raft_id = secrets.randbits(62) + 1
        self.process: asyncio.subprocess.Process | None = None
        self._channel: grpc.aio.Channel | None = None

    def configure(self, identity: NodeIdentity, join_addresses: tuple[str, ...]) -> None:
        identity.save(self.paths.certificates)
        config = ManagerConfig(
            raft_id=self.raft_id,
            advertise_address=self.address,
            listen_address=self.address,
            join_addresses=join_addresses,
        )
        config.save(self.paths)

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                child.__file__,
                str(os.getpid()),
                sys.executable,
                "-m",
                "pyswarm_manager",
                "--state-dir",
                str(self.paths.root),
                "--run-dir",
                str(self.paths.run_dir),
                stderr=log,
                start_new_session=True,
            )

    @property
    def channel(self) -> grpc.aio.Channel:
        """To its unix socket."""
        if self._channel is None:
            self._channel = open_local_channel(str(self.paths.socket))
        return self._channel

    @property
    def control(self) -> Any:
        return control_pb2_grpc.ControlStub(self.channel)

    async def health(self) -> health_pb2.GetHealthResponse:
        return await health_pb2_grpc.HealthStub(self.channel).GetHealth(health_pb2.GetHealthRequest(), timeout=2.0)

    async def wait_health(self, condition: Callable[[health_pb2.GetHealthResponse], bool]) -> None:
        """Until it answers and the answer is as wanted; fails with its log."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                if condition(await self.health()):
                    return
            assert self.process is not None
            if self.process.returncode is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} is not as wanted:\n{self.log.read_text()[-4000:]}")
            await asyncio.sleep(0.05)

    async def wait_votes(self) -> None:
        """Until it is a full member, as the standard health service tells."""
        request = health_check_pb2.HealthCheckRequest()
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer: Any = health_check_pb2_grpc.HealthStub(self.channel).Check(request, timeout=2.0)
                if (await answer).status == health_check_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.name} does not vote:\n{self.log.read_text()[-4000:]}")

    async def wait_follows(self, leader: ManagerProcess, index: int = 0) -> None:
        """Until it follows that leader and has applied so much."""
        await self.wait_health(
            lambda health: health.leader_raft_id == leader.raft_id and health.applied_index >= max(index, 1)
        )

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """Send the signal and wait for the end; the exit code."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        code = await asyncio.wait_for(self.process.wait(), 20.0)
        await self.close_channel()
        return code

    async def close_channel(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            await self.kill()
        await self.close_channel()


@dataclass
class ManagerCluster:
    """Managers of one cluster. `start` the first, `join` the others."""

    root: Path
    cluster_id: str = field(default_factory=new_id)
    managers: list[ManagerProcess] = field(default_factory=list)
    tokens: JoinTokens = field(default_factory=JoinTokens)
    agents: list[FakeAgent] = field(default_factory=list)
    authority: RootAuthority = field(init=False)

    def __post_init__(self) -> None:
        self.authority = RootAuthority.create(self.cluster_id, time.time())

    def issue(self, node_id: str, role: NodeRole, authority: RootAuthority | None = None) -> NodeIdentity:
        """A certificate made here, not by the managers."""
        key = generate_key()
        cert = (authority or self.authority).issue(
            make_csr(key),
            node_id=node_id,
            cluster_id=self.cluster_id,
            role=role,
            now=time.time(),
            lifetime_s=86_400.0,
        )
        return NodeIdentity(cert, key_to_pem(key), self.authority.cert_pem)

    def _new_manager(self) -> ManagerProcess:
        manager = ManagerProcess(f"m{len(self.managers) + 1}", self.root, free_port_pair())
        self.managers.append(manager)
        return manager

    async def start(self) -> ManagerProcess:
        """The first manager, as `init` makes it."""
        manager, node_id = self._new_manager(), new_id()
        tokens = [str(JoinToken.generate(self.authority.cert_pem)) for _ in range(2)]
        self.tokens = JoinTokens(worker=tokens[0], manager=tokens[1])
        cluster = Cluster(
            id=self.cluster_id,
            root_ca_cert=self.authority.cert_pem,
            root_ca_key=self.authority.key_pem,
            join_tokens=self.tokens,
        )
        node = Node(
            id=node_id,
            spec=NodeSpec(role=NodeRole.MANAGER),
            role=NodeRole.MANAGER,
            manager_status=ManagerStatus(raft_id=manager.raft_id, address=manager.address),
        )
        manager.configure(self.issue(node_id, NodeRole.MANAGER), ())
        Bootstrap(cluster=cluster, node=node).save(manager.paths.bootstrap)
        await manager.start()
        await manager.wait_health(lambda health: bool(health.cluster_id) and health.leader_raft_id != 0)
        return manager

    async def join(self) -> ManagerProcess:
        """Another manager, as `join` makes it: a certificate over HTTPS, then the process."""
        first, manager = self.managers[0], self._new_manager()
        identity = await self.obtain(first, self.tokens.manager)
        manager.configure(identity, (first.address,))
        await manager.start()
        return manager

    async def start_three(self) -> list[ManagerProcess]:
        """Three managers that are all voters of one mind."""
        first = await self.start()
        for _ in range(2):
            manager = await self.join()
            await manager.wait_votes()
        index = (await first.health()).applied_index
        for manager in self.managers[1:]:
            await manager.wait_follows(first, index)
        await first.wait_health(lambda health: len(health.members) == 3)
        return self.managers

    async def obtain(self, manager: ManagerProcess, token: str) -> NodeIdentity:
        """A certificate from the managers, by token."""
        key = generate_key()
        request = ca_pb2.IssueCertificateRequest(
            csr=make_csr(key), token=token, hostname=f"h{new_id()[:6]}", address="127.0.0.1"
        )
        context = ssl.create_default_context(cadata=self.authority.cert_pem.decode())
        async with aiohttp.ClientSession() as session:
            post = session.post(
                f"{manager.join_url}/IssueCertificate",
                data=request.SerializeToString(),
                headers={"Content-Type": "application/proto"},
                ssl=context,
                server_hostname="swarm-manager",
            )
            async with post as response:
                body = await response.read()
                assert response.status == 200, body
        answer = ca_pb2.IssueCertificateResponse.FromString(body)
        return NodeIdentity(answer.certificate, key_to_pem(key), answer.root_ca_cert)

    async def leader(self) -> ManagerProcess:
        """Who leads, as soon as somebody does."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for manager in self.managers:
                if manager.process is None or manager.process.returncode is not None:
                    continue
                with contextlib.suppress(grpc.aio.AioRpcError):
                    if (await manager.health()).leader_raft_id == manager.raft_id:
                        return manager
            await asyncio.sleep(0.02)
        logs = "\n".join(f"--- {m.name}\n{m.log.read_text()[-2000:]}" for m in self.managers)
        raise AssertionError(f"nobody leads\n{logs}")

    async def agent(self) -> FakeAgent:
        """A worker that joined and keeps a session."""
        identity = await self.obtain(await self.leader(), self.tokens.worker)
        agent = FakeAgent(identity, [manager.address for manager in self.managers])
        self.agents.append(agent)
        agent.start()
        return agent

    async def close(self) -> None:
        for agent in self.agents:
            await agent.stop()
        await asyncio.gather(*(manager.close() for manager in self.managers))


class FakeAgent:
    """A worker whose containers start and stop at once. Keeps its tasks and its unacknowledged statuses, as on disk."""

    def __init__(self, identity: NodeIdentity, managers: list[str]) -> None:
        self.identity = identity
        self.node_id = identity.node_id
        self.managers = managers
        self.tasks: dict[str, types_pb2.Task] = {}
        self.states: dict[str, TaskState] = {}
        self.networks: dict[str, dispatcher_pb2.NetworkTable] = {}
        self.sessions = 0
        self.started_tasks: list[str] = []
        self._unacknowledged: dict[int, dict[str, TaskState]] = {}
        self._sequence = 0
        self._task: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def running(self) -> list[str]:
        return [task_id for task_id, state in self.states.items() if state is TaskState.RUNNING]

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Until what it knows is as wanted."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def _run(self) -> None:
        address = self.managers[0]
        while True:
            address = await self._session(address) or secrets.choice(self.managers)
            await asyncio.sleep(0.05)

    async def _session(self, address: str) -> str:
        """One session; where the leader is, if that was said at its end."""
        channel = open_channel(address, self.identity, "swarm-manager")
        call: Any = dispatcher_pb2_grpc.DispatcherStub(channel).Session()  # type: ignore[call-arg]
        beats: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(2.0):  # a manager that stands still accepts connections
                await call.write(dispatcher_pb2.AgentMessage(hello=self._hello()))
                await self._handle(call, await call.read())
            beats = asyncio.create_task(_beat(call))
            while (message := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                await self._handle(call, message)
        except grpc.aio.AioRpcError as error:
            trailers: Any = error.trailing_metadata() or ()
            return str(dict(tuple(pair) for pair in trailers).get("pyswarm-leader", ""))
        except (asyncio.InvalidStateError, TimeoutError):
            pass
        finally:
            call.cancel()
            if beats is not None:
                beats.cancel()
            await channel.close(None)
        return ""

    def _hello(self) -> dispatcher_pb2.Hello:
        description = NodeDescription(
            hostname=f"h{self.node_id[:6]}",
            resources=Resources(nano_cpus=8_000_000_000, memory_bytes=8 << 30),
            data_path_address="127.0.0.1",
            agent_address="127.0.0.1:7946",
        )
        return dispatcher_pb2.Hello(description=to_proto(description), address="127.0.0.1")

    async def _handle(self, call: Any, message: dispatcher_pb2.ManagerMessage) -> None:
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise asyncio.InvalidStateError
        kind = message.WhichOneof("message")
        if kind == "started":
            self.sessions += 1
            pending = {k: v for batch in self._unacknowledged.values() for k, v in batch.items()}
            self._unacknowledged.clear()
            await self._report(call, pending)
        elif kind == "assignments":
            news = self._obey(message.assignments)
            for table in message.assignments.networks:
                done = dispatcher_pb2.TablesProgrammed(network_id=table.network_id, version=table.version)
                await call.write(dispatcher_pb2.AgentMessage(tables_programmed=done))
            await self._report(call, news)
        elif kind == "status_ack":
            for sequence in [s for s in self._unacknowledged if s <= message.status_ack.sequence]:
                del self._unacknowledged[sequence]
        self.changed.set()

    def _obey(self, assignments: dispatcher_pb2.Assignments) -> dict[str, TaskState]:
        """The statuses that follow from what it is told."""
        if assignments.type == dispatcher_pb2.Assignments.TYPE_COMPLETE:
            named = {task.id for task in assignments.update_tasks}
            gone = [task_id for task_id in self.tasks if task_id not in named]
        else:
            gone = list(assignments.remove_task_ids)
        for task_id in gone:
            self.tasks.pop(task_id, None)
            self.states.pop(task_id, None)
        for table in assignments.networks:
            self.networks[table.network_id] = table
        news = {}
        for task in assignments.update_tasks:
            self.tasks[task.id] = task
            old, wanted = self.states.get(task.id), TaskState(task.desired_state)
            new = TaskState.RUNNING if wanted <= TaskState.RUNNING else TaskState.SHUTDOWN
            if old is None or new > old:
                if new is TaskState.RUNNING:
                    self.started_tasks.append(task.id)
                self.states[task.id] = news[task.id] = new
        return news

    async def _report(self, call: Any, news: dict[str, TaskState]) -> None:
        if not news:
            return
        self._sequence += 1
        self._unacknowledged[self._sequence] = news
        batch = dispatcher_pb2.TaskStatusBatch(sequence=self._sequence)
        for task_id, state in news.items():
            batch.updates.add(task_id=task_id, status=to_proto(TaskStatus(state=state, timestamp=time.time())))
        await call.write(dispatcher_pb2.AgentMessage(statuses=batch))


async def _beat(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await asyncio.sleep(1.0)
            await call.write(dispatcher_pb2.AgentMessage(heartbeat=dispatcher_pb2.Heartbeat()))


@contextlib.asynccontextmanager
async def manager_cluster(root: Path, kind: type[C] = ManagerCluster) -> AsyncIterator[C]:  # type: ignore[assignment]
    """A cluster whose processes end with the block."""
    cluster = kind(root)
    try:
        yield cluster
    finally:
        await cluster.close()


def service_spec(name: str, replicas: int, network: str = "", published_port: int = 0) -> types_pb2.ServiceSpec:
    """A replicated service of busybox."""
    spec = types_pb2.ServiceSpec(name=name, replicas=replicas)
    spec.task.container.image = "busybox:latest"
    spec.task.restart.delay_s = 0.0
    if network:
        spec.task.networks.add(target=network)
    if published_port:
        spec.endpoint.ports.add(target_port=80, published_port=published_port)
    return spec


async def scale(manager: ManagerProcess, name: str, replicas: int) -> None:
    """What the CLI does for `service scale`."""
    service = (await manager.control.GetService(control_pb2.GetServiceRequest(service=name))).service
    service.spec.replicas = replicas
    await manager.control.UpdateService(
        control_pb2.UpdateServiceRequest(service_id=service.id, version=service.meta.version, spec=service.spec)
    )
