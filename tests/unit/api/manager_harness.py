"""A few managers in one process: real Raft on a switchboard, the real store, real gRPC by mTLS on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from msgspec.structs import replace

from pyswarm.v1 import (
    access_pb2_grpc,
    attachments_pb2_grpc,
    backup_pb2_grpc,
    ca_pb2_grpc,
    control_pb2_grpc,
    exec_pb2_grpc,
    health_pb2_grpc,
    jobs_pb2_grpc,
    logs_pb2_grpc,
    network_checks_pb2_grpc,
    operator_pb2_grpc,
    plans_pb2_grpc,
    scheduling_pb2_grpc,
    secrets_pb2_grpc,
    security_pb2_grpc,
    types_pb2,
    watch_pb2_grpc,
)
from pyswarm_common import rpc
from pyswarm_common.codec import to_proto
from pyswarm_common.identity import (
    JoinToken,
    NodeIdentity,
    RootAuthority,
    generate_key,
    key_to_pem,
    make_csr,
    role_name,
)
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import (
    Cluster,
    ContainerSpec,
    JoinTokens,
    ManagerStatus,
    Network,
    NetworkSpec,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
    ServiceSpec,
    TaskSpec,
)
from pyswarm_manager.access.admission import StoreAdmission
from pyswarm_manager.access.connect import PeopleDoor, people_methods
from pyswarm_manager.access.entering import EnteringServicer
from pyswarm_manager.access.network_checks import NetworkChecksServicer
from pyswarm_manager.access.servicer import AccessServicer
from pyswarm_manager.access.tokens import Bearers
from pyswarm_manager.api.attachments import AttachmentsServicer
from pyswarm_manager.api.authorisation import TABLE
from pyswarm_manager.api.control import ControlServicer
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.health import HealthServicer
from pyswarm_manager.api.jobs import JobsServicer
from pyswarm_manager.api.logs import LogsServicer
from pyswarm_manager.api.operator import OperatorServicer
from pyswarm_manager.api.plans import PlansServicer
from pyswarm_manager.api.scheduling import SchedulingServicer
from pyswarm_manager.api.secrets import SecretsServicer
from pyswarm_manager.api.watch import WatchServicer
from pyswarm_manager.backup.servicer import BackupServicer
from pyswarm_manager.ca.security import SecurityServicer
from pyswarm_manager.ca.servicer import CAServicer
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.raft.memory_transport import MemoryTransport, Switchboard
from pyswarm_manager.raft.ports import RaftConfig
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_manager.store.changes import Create
from pyswarm_manager.store.store import Store

CLUSTER_ID = "c" * 25


def new_id() -> str:
    return id_from_bits(secrets.randbits(128))


def make_identity(root: RootAuthority, node_id: str, role: NodeRole) -> NodeIdentity:
    key = generate_key()
    cert = root.issue(
        make_csr(key), node_id=node_id, cluster_id=CLUSTER_ID, role=role, now=time.time(), lifetime_s=3600
    )
    return NodeIdentity(cert, key_to_pem(key), root.cert_pem)


def make_cluster(root: RootAuthority) -> Cluster:
    tokens = JoinTokens(worker=str(JoinToken.generate(root.cert_pem)), manager=str(JoinToken.generate(root.cert_pem)))
    return Cluster(id=CLUSTER_ID, root_ca_cert=root.cert_pem, root_ca_key=root.key_pem, join_tokens=tokens)


def worker_node(node_id: str, hostname: str, **changes: Any) -> Node:
    node = Node(
        id=node_id,
        description=NodeDescription(hostname=hostname, engine_version="0.1"),
        status=NodeStatus(state=NodeState.READY, address="127.0.0.1"),
    )
    return replace(node, **changes)


def service_spec(name: str = "web", image: str = "busybox", **changes: Any) -> ServiceSpec:
    spec = ServiceSpec(name=name, task=TaskSpec(container=ContainerSpec(image=image)))
    return replace(spec, **changes)


def wire(struct: Any) -> Any:
    return to_proto(struct)


@dataclass
class Manager:
    """One manager: everything that the process would compose, but for the loops."""

    node_id: str
    raft_id: int
    address: str
    identity: NodeIdentity
    store: Store
    raft: RaftNode
    ca: CAServicer
    server: grpc.aio.Server
    forwarder: LeaderForwarder
    people: PeopleDoor
    runner: asyncio.Task[None] | None = None


@dataclass
class Swarm:
    root: RootAuthority = field(default_factory=lambda: RootAuthority.create(CLUSTER_ID, time.time()))
    board: Switchboard = field(default_factory=Switchboard)
    managers: list[Manager] = field(default_factory=list)
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    guards: dict[int, rpc.GuardInterceptor] = field(default_factory=dict)
    table_versions: dict[str, int] = field(default_factory=dict)
    """Of networks' tables, as the leader's dispatcher would say."""

    def _numbered(self, number: int) -> Manager:
        return next(manager for manager in self.managers if manager.raft_id == number)

    @property
    def leader(self) -> Manager:
        return next(manager for manager in self.managers if manager.raft.is_leader)

    @property
    def followers(self) -> list[Manager]:
        return [manager for manager in self.managers if not manager.raft.is_leader]

    async def start(self, count: int) -> None:
        """Managers that are the first members together, with a cluster object, their nodes and the ingress network."""
        built = [self._bind(number) for number in range(1, count + 1)]
        first = {number: f"127.0.0.1:{port}" for number, (_, port, _) in enumerate(built, 1)}
        for number, (server, port, identity) in enumerate(built, 1):
            await self._start_manager(number, server, f"127.0.0.1:{port}", identity, first)
        await self.wait(lambda: any(manager.raft.is_leader for manager in self.managers))
        nodes = [Create(self._node(manager)) for manager in self.managers]
        ingress = Network(id=new_id(), spec=NetworkSpec(name="ingress", driver="overlay", ingress=True))
        await self.leader.store.propose([Create(make_cluster(self.root)), Create(ingress), *nodes])
        await self.settle()

    async def add(self) -> Manager:
        """A manager that is not a member yet."""
        number = len(self.managers) + 1
        server, port, identity = self._bind(number)
        return await self._start_manager(number, server, f"127.0.0.1:{port}", identity, None)

    def _bind(self, number: int) -> tuple[grpc.aio.Server, int, NodeIdentity]:
        identity = make_identity(self.root, f"{number}".rjust(25, "m"), NodeRole.MANAGER)
        admission = StoreAdmission(
            lambda: self._numbered(number).store.view, lambda: self._numbered(number).raft, lambda: identity, time.time
        )
        guard = rpc.GuardInterceptor(TABLE, lambda: CLUSTER_ID, admission)
        self.guards[number] = guard
        server = grpc.aio.server(interceptors=[guard], options=rpc.SERVER_OPTIONS)
        return server, server.add_secure_port("127.0.0.1:0", identity.server_credentials()), identity

    async def _start_manager(
        self,
        number: int,
        server: grpc.aio.Server,
        address: str,
        identity: NodeIdentity,
        first: dict[int, str] | None,
    ) -> Manager:
        store = Store(time.time)
        config = RaftConfig(raft_id=number, address=address, tick_s=0.02)
        raft = await RaftNode.open(config, MemoryStorage(), MemoryTransport(number, self.board), store, first)
        store.connect(raft)
        self.board.connect(number, raft.receive)
        forwarder = LeaderForwarder(raft, lambda: identity)
        ca = CAServicer(store, raft, forwarder, new_id, time.time)
        control = ControlServicer(store, raft, forwarder, new_id, time.time)
        access = AccessServicer(store, raft, forwarder, new_id, time.time)
        registrations: list[Callable[[Any], None]] = [
            partial(control_pb2_grpc.add_ControlServicer_to_server, control),
            partial(
                attachments_pb2_grpc.add_AttachmentsServicer_to_server,
                AttachmentsServicer(store, raft, forwarder, new_id, time.time),
            ),
            partial(jobs_pb2_grpc.add_JobsServicer_to_server, JobsServicer(store, raft, forwarder, new_id, time.time)),
            partial(
                scheduling_pb2_grpc.add_SchedulingServicer_to_server,
                SchedulingServicer(store, raft, forwarder, new_id, time.time),
            ),
            partial(
                plans_pb2_grpc.add_PlansServicer_to_server,
                # There is no dispatcher, hence nobody who knows what images nodes have.
                PlansServicer(store, raft, forwarder, new_id, time.time, lambda node_id: None),
            ),
            partial(access_pb2_grpc.add_AccessServicer_to_server, access),
            partial(
                exec_pb2_grpc.add_ExecServicer_to_server, EnteringServicer(store, raft, forwarder, lambda: identity)
            ),
            partial(
                secrets_pb2_grpc.add_SecretsServicer_to_server,
                SecretsServicer(store, raft, forwarder, new_id, time.time),
            ),
            partial(
                network_checks_pb2_grpc.add_NetworkChecksServicer_to_server,
                NetworkChecksServicer(store, raft, forwarder, lambda: identity, lambda: self.table_versions),
            ),
            partial(watch_pb2_grpc.add_WatchServicer_to_server, WatchServicer(store)),
            partial(logs_pb2_grpc.add_LogsServicer_to_server, LogsServicer(store, lambda: identity)),
            partial(health_pb2_grpc.add_HealthServicer_to_server, HealthServicer(raft, store, lambda: identity)),
            partial(
                operator_pb2_grpc.add_OperatorServicer_to_server,
                OperatorServicer(store, raft, forwarder, lambda: identity),
            ),
            partial(
                security_pb2_grpc.add_SecurityServicer_to_server,
                SecurityServicer(store, raft, forwarder, new_id, time.time),
            ),
            partial(
                backup_pb2_grpc.add_BackupServicer_to_server,
                # Its loop, which writes files, is not run.
                BackupServicer(store, raft, forwarder, new_id, time.time, Path("/nonexistent")),
            ),
        ]
        for register in registrations:
            register(server)
        ca_pb2_grpc.add_CAServicer_to_server(ca, server)
        await server.start()
        bearers = Bearers(lambda: store.view, lambda: raft, time.monotonic)
        people = PeopleDoor(people_methods(self.guards[number], registrations), bearers)
        manager = Manager(identity.node_id, number, address, identity, store, raft, ca, server, forwarder, people)
        manager.runner = asyncio.get_running_loop().create_task(raft.run())
        self.managers.append(manager)
        return manager

    def _node(self, manager: Manager) -> Node:
        return Node(
            id=manager.node_id,
            spec=NodeSpec(role=NodeRole.MANAGER),
            role=NodeRole.MANAGER,
            description=NodeDescription(hostname=f"manager{manager.raft_id}", engine_version="0.1"),
            status=NodeStatus(state=NodeState.READY),
            manager_status=ManagerStatus(raft_id=manager.raft_id, address=manager.address),
        )

    async def kill(self, manager: Manager) -> None:
        """As kill -9: nobody hears of it."""
        self.board.disconnect(manager.raft_id)
        self.managers.remove(manager)
        await manager.server.stop(None)
        await manager.forwarder.close()
        await manager.raft.close(transfer=False)
        if manager.runner is not None:
            await manager.runner

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close(None)
        for manager in list(self.managers):
            await self.kill(manager)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Until it holds; the test's own timeout ends a wait that never will."""
        while not condition():  # noqa: ASYNC110  -- Raft has no event for all of what tests wait for
            await asyncio.sleep(0.005)

    async def settle(self) -> None:
        """Until every member has applied what the leader has."""
        index = self.leader.raft.applied_index
        await self.wait(lambda: all(manager.raft.applied_index >= index for manager in self.managers))

    def channel(self, manager: Manager, identity: NodeIdentity | None = None) -> grpc.aio.Channel:
        who = identity or make_identity(self.root, manager.node_id, NodeRole.MANAGER)
        channel = rpc.open_channel(manager.address, who, role_name(NodeRole.MANAGER))
        self.channels.append(channel)
        return channel

    def control(self, manager: Manager | None = None, identity: NodeIdentity | None = None) -> Any:
        return control_pb2_grpc.ControlStub(self.channel(manager or self.leader, identity))

    def operator(self, manager: Manager | None = None, identity: NodeIdentity | None = None) -> Any:
        return operator_pb2_grpc.OperatorStub(self.channel(manager or self.leader, identity))

    def ca(self, manager: Manager | None = None, identity: NodeIdentity | None = None) -> Any:
        return ca_pb2_grpc.CAStub(self.channel(manager or self.leader, identity))

    async def create(self, *objects: Any) -> None:
        await self.leader.store.propose([Create(item) for item in objects])
        await self.settle()


@contextlib.asynccontextmanager
async def running_swarm(count: int = 1) -> AsyncIterator[Swarm]:
    swarm = Swarm()
    try:
        await swarm.start(count)
        yield swarm
    finally:
        await swarm.close()


async def asked(call: Awaitable[Any]) -> Any:
    """The answer, or the refusal as the CLI would see it."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise rpc.error_from_rpc(error) from None


def spec_of(service: types_pb2.Service) -> types_pb2.ServiceSpec:
    copy = types_pb2.ServiceSpec()
    copy.CopyFrom(service.spec)
    return copy
