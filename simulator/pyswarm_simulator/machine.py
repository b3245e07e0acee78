"""One host's containers, images and networks: small real implementations that take virtual time.

They belong to the host, not to the agent's process: a container outlives a restart of its agent, and ends with the
host. What the agent began and did not live to see is done all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from pyswarm_common.errors import FailedPrecondition, NotFound
from pyswarm_overlay.types import IngressPort, NetworkTable, Sandbox, TableDelta
from pyswarm_runtime.reference import parse_reference
from pyswarm_runtime.types import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    ExecResult,
    Image,
    ImageConfig,
    ImageManifest,
    LogRecord,
)
from pyswarm_runtime.usage import ContainerUsage
from pyswarm_simulator.mailbox import Mailbox
from pyswarm_simulator.world import EPOCH, ProcessLoop, World

BLOB_BYTES = 1000


@dataclass(slots=True)
class MachineWeather:
    """How long things take, at most."""

    create_s: float = 0.05
    start_s: float = 0.1
    stop_s: float = 0.3
    pull_s: float = 0.2


FINISHES = "FINISHES_AFTER_S"
"""A container with this variable ends by itself, after so long on average."""
WELL_FINISHED = 0.85
"""How likely it ends well."""


def _variables(config: ContainerConfig) -> list[tuple[str, str, str]]:
    return [variable.partition("=") for variable in config.env]


class SimRuntime:
    """Containers that run until they are told otherwise, or crash."""

    def __init__(self, world: World, host: str, weather: MachineWeather) -> None:
        self._world, self._host, self._weather = world, host, weather
        self.states: dict[str, ContainerState] = {}
        self.on_started: Callable[[ContainerState], None] = lambda state: None
        self.on_stopping: Callable[[ContainerState], None] = lambda state: None
        self.usage_of: Callable[[ContainerState], ContainerUsage] = lambda state: ContainerUsage(0, 0)
        """What a container uses, as far as anybody asks."""
        self._made = 0
        self._listener: Mailbox[ContainerState] | None = None

    def serve(self, loop: ProcessLoop) -> None:
        """A new agent's process: what the old one listened to is gone."""
        self._loop = loop
        self._listener = None

    # -- what the agent calls ------------------------------------------------------------------------------------------

    async def create(self, config: ContainerConfig, /) -> str:
        await self._take(self._weather.create_s)
        self._made += 1
        container_id = f"{self._host}-c{self._made}"
        self.states[container_id] = ContainerState(
            id=container_id, config=config, status="created", image_digest="", created_at=self._now()
        )
        return container_id

    async def start(self, container_id: str, /) -> ContainerState:
        self._present(container_id)
        duration = self._world.rng.uniform(0, self._weather.start_s)
        self._world.after_s(duration / 2, lambda: self._started(container_id))
        await asyncio.sleep(duration)
        return self._present(container_id)

    def _started(self, container_id: str) -> None:
        state = self.states.get(container_id)
        if state is not None and state.status == "created":
            self.on_started(self._set(container_id, "running", pid=100 + self._made, started_at=self._now()))
            self._finish_later(container_id, state.config)

    def _finish_later(self, container_id: str, config: ContainerConfig) -> None:
        """What is there to complete does, sometimes badly."""
        mean_s = next((float(value) for name, _, value in _variables(config) if name == FINISHES), None)
        if mean_s is not None:
            code = 0 if self._world.rng.random() < WELL_FINISHED else 1
            duration_s = self._world.rng.uniform(0, 2 * mean_s)
            self._world.after_s(duration_s, lambda: self.exit(container_id, code))

    async def stop(self, container_id: str, grace_s: float, /) -> ContainerState:
        state = self._present(container_id)
        if state.status == "running":
            self.on_stopping(state)
            duration = self._world.rng.uniform(0, min(self._weather.stop_s, grace_s))
            self._world.after_s(duration / 2, lambda: self.exit(container_id, 143))
            await asyncio.sleep(duration)
        return self._present(container_id)

    async def remove(self, container_id: str, /, force: bool = False) -> None:
        await self._take(0.01)
        state = self._present(container_id)
        if state.status == "running" and not force:
            raise FailedPrecondition(f"container {container_id} is running: stop it first")
        del self.states[container_id]

    async def usage(self, container_ids: Sequence[str], /) -> Mapping[str, ContainerUsage]:
        await self._take(0.01)
        return {found: self.usage_of(self.states[found]) for found in container_ids if found in self.states}

    async def exec(self, container_id: str, argv: Sequence[str], /, *, timeout_s: float) -> ExecResult:
        await self._take(0.01)
        is_running = self._present(container_id).status == "running"
        return ExecResult(0 if is_running else 1, b"")

    async def logs(
        self, container_id: str, /, *, follow: bool, tail: int | None, since: float | None
    ) -> AsyncIterator[LogRecord]:
        self._present(container_id)
        for record in _no_records():
            yield record

    def exits(self) -> AsyncIterator[ContainerState]:
        mailbox: Mailbox[ContainerState] = Mailbox(self._loop)
        self._listener = mailbox
        return _endless(mailbox)

    # -- what befalls it -----------------------------------------------------------------------------------------------

    def running(self) -> list[ContainerState]:
        """What runs now."""
        return [state for state in self.states.values() if state.status == "running"]

    def exit(self, container_id: str, exit_code: int) -> None:
        """The container's process ends."""
        state = self.states.get(container_id)
        if state is not None and state.status == "running":
            ended = self._set(container_id, "exited", exit_code=exit_code, finished_at=self._now(), pid=0)
            if self._listener is not None:
                self._listener.put(ended)

    def power_off(self) -> None:
        """Every container ends with the host, and nobody is told."""
        self._listener = None
        for state in self.running():
            self._set(state.id, "exited", exit_code=255, error="the host went down", finished_at=self._now(), pid=0)

    def _present(self, container_id: str) -> ContainerState:
        state = self.states.get(container_id)
        if state is None:
            raise NotFound(f"No such container: {container_id}")
        return state

    def _set(self, container_id: str, status: ContainerStatus, **changes: object) -> ContainerState:
        state = msgspec.structs.replace(self.states[container_id], status=status, **changes)
        self.states[container_id] = state
        return state

    def _now(self) -> float:
        return EPOCH + self._world.now

    async def _take(self, most_s: float) -> None:
        await asyncio.sleep(self._world.rng.uniform(0, most_s))

    async def list(self) -> list[ContainerState]:
        return list(self.states.values())


def _no_records() -> Sequence[LogRecord]:
    return ()


async def _endless(mailbox: Mailbox[ContainerState]) -> AsyncIterator[ContainerState]:
    while True:
        yield await mailbox.get()


class SimImages:
    """References and blobs in memory. Every image is one blob of its own."""

    def __init__(self, world: World, weather: MachineWeather, references: Iterable[str]) -> None:
        self._world, self._weather = world, weather
        self.references = dict.fromkeys(references)
        self._blobs = {f"sha256:{name}" for name in self.references}

    def _find(self, reference: str) -> str:
        name = str(parse_reference(reference))
        if name not in self.references:
            raise NotFound(f"No such image: {reference}")
        return name

    async def exists(self, reference: str, /) -> bool:
        return str(parse_reference(reference)) in self.references

    async def inspect(self, reference: str, /) -> Image:
        return _image(self._find(reference))

    async def list(self) -> list[Image]:
        return [_image(name) for name in self.references]

    async def manifest(self, reference: str, /) -> ImageManifest:
        name = self._find(reference)
        return ImageManifest(
            reference=name, config_digest=f"sha256:{name}", config_size=BLOB_BYTES, manifest_bytes=b"m", layers=()
        )

    async def has_blob(self, digest: str, /) -> bool:
        return digest in self._blobs

    async def read_blob(self, digest: str, offset: int = 0, /) -> AsyncIterator[bytes]:
        if digest not in self._blobs:
            raise NotFound(f"blob {digest} is not on this node")
        yield bytes(BLOB_BYTES - offset)

    async def write_blob(self, digest: str, size: int, chunks: AsyncIterator[bytes], /) -> None:
        await asyncio.sleep(self._world.rng.uniform(0, self._weather.pull_s))
        data = b"".join([chunk async for chunk in chunks])
        if len(data) != size:
            raise FailedPrecondition(f"blob {digest} has {len(data)} bytes and not {size}")
        self._blobs.add(digest)

    async def commit(self, reference: str, manifest_bytes: bytes, /) -> Image:
        name = str(parse_reference(reference))
        self.references[name] = None
        return _image(name)


def _image(reference: str) -> Image:
    return Image(
        id=f"sha256:{reference}",
        digest=f"sha256:{reference}",
        references=(reference,),
        size=BLOB_BYTES,
        created_at=0,
        architecture="amd64",
        os="linux",
        config=ImageConfig(),
    )


class SimOverlay:
    """Remembers what is wanted of it; refuses what a kernel would."""

    def __init__(self) -> None:
        self.tables: dict[str, NetworkTable] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self.ingress: tuple[tuple[str, ...], tuple[IngressPort, ...]] = ((), ())

    def networks(self) -> Sequence[str]:
        return sorted(self.tables)

    async def apply_table(self, table: NetworkTable, /) -> None:
        self.tables[table.network_id] = table

    async def apply_delta(self, delta: TableDelta, /) -> bool:
        table = self.tables.get(delta.network_id)
        if table is None or table.version != delta.from_version:
            return False
        endpoints = {record.endpoint_id: record for record in table.endpoints}
        services = {record.service_id: record for record in table.services}
        for endpoint_id in delta.remove_endpoints:
            endpoints.pop(endpoint_id, None)
        for service_id in delta.remove_services:
            services.pop(service_id, None)
        endpoints.update((record.endpoint_id, record) for record in delta.upsert_endpoints)
        services.update((record.service_id, record) for record in delta.upsert_services)
        self.tables[delta.network_id] = msgspec.structs.replace(
            table, version=delta.version, endpoints=tuple(endpoints.values()), services=tuple(services.values())
        )
        return True

    async def remove_network(self, network_id: str, /) -> None:
        used = (a.network_id for sandbox in self.sandboxes.values() for a in sandbox.attachments)
        if network_id in used:
            raise FailedPrecondition(f"network {network_id} is in use")
        self.tables.pop(network_id, None)

    async def attach(self, sandbox: Sandbox, /) -> str:
        for attachment in sandbox.attachments:
            if attachment.network_id not in self.tables:
                raise NotFound(f"network {attachment.network_id} is not known on this host")
        self.sandboxes[sandbox.sandbox_id] = sandbox
        return f"/ns/{sandbox.sandbox_id}"

    async def connections(self, sandbox_id: str, /) -> int:
        """Nobody sends anything here."""
        return 0

    async def detach(self, sandbox_id: str, /) -> None:
        self.sandboxes.pop(sandbox_id, None)

    async def set_ingress(self, node_addresses: tuple[str, ...], ports: tuple[IngressPort, ...], /) -> None:
        self.ingress = (node_addresses, ports)

    def sending(self) -> list[NetworkTable]:
        """The tables by which something here may open connections: ingress, and networks that a sandbox is on. A node
        that has no container on a network is told nothing of it any more, and what its kernel keeps leads nobody."""
        used = {a.network_id for sandbox in self.sandboxes.values() for a in sandbox.attachments}
        return [table for table in self.tables.values() if table.ingress or table.network_id in used]

    async def retain(self, sandbox_ids: Iterable[str], /) -> None:
        kept = set(sandbox_ids)
        self.sandboxes = {key: value for key, value in self.sandboxes.items() if key in kept}

    def power_off(self) -> None:
        """Nothing of it is in the kernel any more."""
        self.tables.clear()
        self.sandboxes.clear()
        self.ingress = ((), ())
