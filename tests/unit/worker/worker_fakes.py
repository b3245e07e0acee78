"""Small real fakes for the agent: a runtime, an image store, an overlay, and a manager that speaks gRPC over mTLS."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc
import msgspec

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import dispatcher_pb2_grpc
from pyswarm_common import errors, rpc
from pyswarm_common.codec import from_proto, to_proto
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.model import ContainerSpec, Node, NodeRole, Task, TaskSpec, TaskState, TaskStatus
from pyswarm_overlay.types import IngressPort, NetworkTable, Sandbox, TableDelta
from pyswarm_runtime.types import (
    ContainerConfig,
    ContainerState,
    Descriptor,
    ExecResult,
    Image,
    ImageConfig,
    ImageManifest,
    LogRecord,
)
from pyswarm_runtime.usage import ContainerUsage

CLUSTER = "c" * 25
NODE = "n" * 25


async def eventually(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Wait for what others are about to do; the timeout is for a test that would hang."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - many parties act here; none has an event for it
            await asyncio.sleep(0.005)


def make_identity(root: RootAuthority, role: NodeRole, node_id: str = NODE) -> NodeIdentity:
    key = generate_key()
    cert = root.issue(make_csr(key), node_id=node_id, cluster_id=CLUSTER, role=role, now=time.time(), lifetime_s=3600)
    return NodeIdentity(cert, key_to_pem(key), root.cert_pem)


def make_task(number: int = 1, desired: TaskState = TaskState.RUNNING, image: str = "busybox") -> Task:
    return Task(
        id=f"t{number:024d}",
        service_id="s" * 25,
        service_name="web",
        slot=number,
        node_id=NODE,
        spec=TaskSpec(container=ContainerSpec(image=image)),
        desired_state=desired,
        status=TaskStatus(state=TaskState.ASSIGNED),
    )


class FakeRuntime:
    """Containers that run until they are told otherwise."""

    def __init__(self) -> None:
        self.states: dict[str, ContainerState] = {}
        self.healthy = True
        self.usages: dict[str, ContainerUsage] = {}
        self.start_error: errors.PyswarmError | None = None
        self._listeners: list[asyncio.Queue[ContainerState | None]] = []

    async def create(self, config: ContainerConfig) -> str:
        container_id = f"c{len(self.states)}"
        self.states[container_id] = ContainerState(
            id=container_id, config=config, status="created", image_digest="", created_at=len(self.states)
        )
        return container_id

    async def start(self, container_id: str) -> ContainerState:
        await asyncio.sleep(0)
        if self.start_error is not None:
            raise self.start_error
        return self._set(container_id, status="running", pid=7, started_at=1.0)

    async def stop(self, container_id: str, grace_s: float) -> ContainerState:
        if self.states[container_id].status == "running":
            self.exit(container_id, 0)
        return self.states[container_id]

    async def remove(self, container_id: str, force: bool = False) -> None:
        assert force or self.states[container_id].status != "running"
        del self.states[container_id]

    async def list(self) -> list[ContainerState]:
        return list(self.states.values())

    async def usage(self, container_ids: Sequence[str]) -> Mapping[str, ContainerUsage]:
        return {found: self.usages[found] for found in container_ids if found in self.usages}

    async def exec(self, container_id: str, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        return ExecResult(0 if self.healthy else 1, b"" if self.healthy else b"not well")

    async def logs(
        self, container_id: str, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncIterator[LogRecord]:
        yield LogRecord(1.5, "stdout", f"hello from {container_id}\n".encode())

    def exits(self) -> AsyncIterator[ContainerState]:
        queue: asyncio.Queue[ContainerState | None] = asyncio.Queue()
        self._listeners.append(queue)
        return self._exits(queue)

    async def _exits(self, queue: asyncio.Queue[ContainerState | None]) -> AsyncIterator[ContainerState]:
        while (state := await queue.get()) is not None:
            yield state
        raise errors.Exhausted("too many exits were not taken in time")

    def overflow(self) -> None:
        """Whoever listens has fallen behind."""
        listeners, self._listeners = self._listeners, []
        for queue in listeners:
            queue.put_nowait(None)

    def exit(self, container_id: str, exit_code: int) -> None:
        state = self._set(container_id, status="exited", exit_code=exit_code, finished_at=2.0)
        for queue in self._listeners:
            queue.put_nowait(state)

    def _set(self, container_id: str, **changes: Any) -> ContainerState:
        self.states[container_id] = msgspec.structs.replace(self.states[container_id], **changes)
        return self.states[container_id]


class FakeImages:
    """References and blobs in memory."""

    def __init__(self, *references: str) -> None:
        self.manifests: dict[str, bytes] = {f"{name}:latest": b"manifest" for name in references}
        self.blobs: dict[str, bytes] = {}
        self.config = ImageConfig()

    def _find(self, reference: str) -> str:
        name = reference if ":" in reference else f"{reference}:latest"
        if name not in self.manifests:
            raise errors.NotFound(f"No such image: {name}")
        return name

    async def exists(self, reference: str) -> bool:
        with contextlib.suppress(errors.NotFound):
            return bool(self._find(reference))
        return False

    async def inspect(self, reference: str) -> Image:
        name = self._find(reference)
        return Image(
            id="sha256:1",
            digest="sha256:2",
            references=(name,),
            size=1,
            created_at=0,
            architecture="amd64",
            os="linux",
            config=self.config,
        )

    async def list(self) -> list[Image]:
        return [await self.inspect(name) for name in self.manifests]

    async def manifest(self, reference: str) -> ImageManifest:
        name = self._find(reference)
        layers = tuple(
            Descriptor(digest=key, size=len(data), media_type="layer")
            for key, data in self.blobs.items()
            if key != "cfg"
        )
        return ImageManifest(
            reference=name,
            config_digest="cfg",
            config_size=len(self.blobs["cfg"]),
            manifest_bytes=self.manifests[name],
            layers=layers,
        )

    async def has_blob(self, digest: str) -> bool:
        return digest in self.blobs

    async def read_blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        data = self.blobs[digest][offset:]
        for at in range(0, len(data), 4):
            yield data[at : at + 4]

    async def write_blob(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        data = b"".join([chunk async for chunk in chunks])
        assert len(data) == size
        self.blobs[digest] = data

    async def commit(self, reference: str, manifest_bytes: bytes) -> Image:
        name = reference if ":" in reference else f"{reference}:latest"
        self.manifests[name] = manifest_bytes
        return await self.inspect(name)


class FakeOverlay:
    """Remembers what is wanted of it."""

    def __init__(self) -> None:
        self.tables: dict[str, NetworkTable] = {}
        self.deltas: list[TableDelta] = []
        self.sandboxes: dict[str, Sandbox] = {}
        self.ingress: tuple[tuple[str, ...], tuple[IngressPort, ...]] = ((), ())
        self.attach_error: errors.PyswarmError | None = None
        self.taken_ports: set[int] = set()
        self.connected: list[int] = []
        """How many connections each next look finds."""

    def networks(self) -> list[str]:
        return sorted(self.tables)

    async def apply_table(self, table: NetworkTable) -> None:
        self.tables[table.network_id] = table

    async def apply_delta(self, delta: TableDelta) -> bool:
        self.deltas.append(delta)
        return True

    async def remove_network(self, network_id: str) -> None:
        if any(a.network_id == network_id for sandbox in self.sandboxes.values() for a in sandbox.attachments):
            raise errors.FailedPrecondition("in use")
        self.tables.pop(network_id, None)

    async def attach(self, sandbox: Sandbox) -> str:
        if self.attach_error is not None:
            raise self.attach_error
        self.sandboxes[sandbox.sandbox_id] = sandbox
        return f"/ns/{sandbox.sandbox_id}"

    async def connections(self, sandbox_id: str) -> int:
        return self.connected.pop(0) if self.connected else 0

    async def detach(self, sandbox_id: str) -> None:
        self.sandboxes.pop(sandbox_id, None)

    async def set_ingress(self, node_addresses: tuple[str, ...], ports: tuple[IngressPort, ...]) -> None:
        taken = [port.published_port for port in ports if port.published_port in self.taken_ports]
        self.ingress = (node_addresses, tuple(port for port in ports if port.published_port not in taken))
        if taken:
            raise errors.AlreadyExists(f"published port {taken[0]}/tcp is already allocated by another program")

    async def retain(self, sandbox_ids: Iterable[str]) -> None:
        kept = set(sandbox_ids)
        self.sandboxes = {key: value for key, value in self.sandboxes.items() if key in kept}


class FakeManager(dispatcher_pb2_grpc.DispatcherServicer):
    """A leader (or a follower that points to one) with one agent at most."""

    def __init__(self, identity: NodeIdentity) -> None:
        self._identity = identity
        self.leader = ""  # non-empty: a follower
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.acknowledges = True
        self.sessions = 0
        self.hello: pb.Hello | None = None
        self.heartbeats = 0
        self.received: list[pb.AgentMessage] = []
        self.states: dict[str, list[TaskState]] = {}
        self.statuses: dict[str, TaskStatus] = {}
        self.holders: list[str] = []
        self.outgoing: asyncio.Queue[pb.ManagerMessage | None] = asyncio.Queue()
        self.complete = pb.Assignments(type=pb.Assignments.TYPE_COMPLETE, ingress=pb.IngressTable(version=1))
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> None:
        self._server = grpc.aio.server(options=rpc.SERVER_OPTIONS)
        dispatcher_pb2_grpc.add_DispatcherServicer_to_server(self, self._server)
        bound = self._server.add_secure_port(f"127.0.0.1:{port}", self._identity.server_credentials())
        self.address = f"127.0.0.1:{bound}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def assign(self, *tasks: Task, remove: Sequence[str] = (), tables: Sequence[pb.NetworkTable] = ()) -> None:
        message = pb.Assignments(
            type=pb.Assignments.TYPE_INCREMENTAL,
            update_tasks=[to_proto(task) for task in tasks],
            remove_task_ids=remove,
            networks=tables,
        )
        self.outgoing.put_nowait(pb.ManagerMessage(assignments=message))

    def state_of(self, task: Task) -> TaskState | None:
        return self.statuses[task.id].state if task.id in self.statuses else None

    async def LocateImage(self, request: pb.LocateImageRequest, context: Any) -> pb.LocateImageResponse:
        return pb.LocateImageResponse(agent_addresses=self.holders)

    async def Session(self, requests: AsyncIterator[pb.AgentMessage], context: Any) -> AsyncIterator[pb.ManagerMessage]:
        if self.leader:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not the leader", (("pyswarm-leader", self.leader),))
        if self.refusal is not None:
            await context.abort(*self.refusal)
        self.sessions += 1
        self.hello = (await anext(requests)).hello
        started = pb.SessionStarted(session_id="x", node=to_proto(Node(id=NODE)), heartbeat_period_s=0.05)
        started.managers.addresses.append(self.address)
        yield pb.ManagerMessage(started=started)
        self.complete.sequence = sequence = 1
        yield pb.ManagerMessage(assignments=self.complete)
        reader = asyncio.create_task(self._read(requests))
        try:
            while (message := await self.outgoing.get()) is not None:
                if message.HasField("assignments"):
                    sequence += 1
                    message.assignments.sequence = sequence
                yield message
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.AgentMessage]) -> None:
        async for message in requests:
            self.received.append(message)
            if message.HasField("heartbeat"):
                self.heartbeats += 1
            if not message.HasField("statuses"):
                continue
            for update in message.statuses.updates:
                status = from_proto(TaskStatus, update.status)
                self.statuses[update.task_id] = status
                self.states.setdefault(update.task_id, []).append(status.state)
            if self.acknowledges:
                ack = pb.StatusAck(sequence=message.statuses.sequence)
                self.outgoing.put_nowait(pb.ManagerMessage(status_ack=ack))
