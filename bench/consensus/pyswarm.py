"""pyswarm's managers, through the public API on their unix sockets. A write changes a label of a service."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[2] / "tests/integration/manager"))

from manager_cluster import ManagerCluster, manager_cluster, service_spec

from bench.consensus.system import RefusedError
from bench.memory import pss_mib
from pyswarm.v1 import control_pb2, control_pb2_grpc
from pyswarm_common.rpc import open_local_channel


class Pyswarm:
    """Three manager processes on loopback, mTLS between them."""

    name = "pyswarm"
    attempt_s = 0.25

    def __init__(self, cluster: ManagerCluster) -> None:
        self.cluster = cluster

    async def leader(self) -> int:
        return self.cluster.managers.index(await self.cluster.leader())

    @contextlib.asynccontextmanager
    async def client(self, member: int, owner: str) -> AsyncIterator[PyswarmClient]:
        channel = open_local_channel(str(self.cluster.managers[member].paths.socket))
        try:
            yield PyswarmClient(channel, owner)
        finally:
            await channel.close(None)

    async def kill(self, member: int) -> None:
        await self.cluster.managers[member].kill()

    async def revive(self, member: int) -> None:
        manager = self.cluster.managers[member]
        await manager.start()
        await manager.wait_votes()
        await manager.wait_follows(await self.cluster.leader())

    def memory_mib(self) -> list[float]:
        processes = (manager.process for manager in self.cluster.managers)
        return [pss_mib(process.pid) for process in processes if process is not None]


class PyswarmClient:
    """One channel; its service is made at the first write."""

    def __init__(self, channel: grpc.aio.Channel, owner: str) -> None:
        self._control: control_pb2_grpc.ControlAsyncStub = control_pb2_grpc.ControlStub(channel)  # type: ignore[assignment]
        self._owner = owner
        self._service: control_pb2.GetServiceResponse | None = None

    async def create(self, name: str) -> None:
        with _refusals():
            await self._control.CreateService(control_pb2.CreateServiceRequest(spec=service_spec(name, 0)))

    async def write(self, value: str) -> None:
        with _refusals():
            service = (self._service or await self._made()).service
            service.spec.labels["value"] = value
            request = control_pb2.UpdateServiceRequest(
                service_id=service.id, version=service.meta.version, spec=service.spec
            )
            self._service = None  # if this is not answered, its version has to be read again
            answer = await self._control.UpdateService(request)
            self._service = control_pb2.GetServiceResponse(service=answer.service)

    async def read(self) -> None:
        with _refusals():
            await self._control.GetService(control_pb2.GetServiceRequest(service=self._owner))

    async def _made(self) -> control_pb2.GetServiceResponse:
        """The client's own service, as it is now."""
        with contextlib.suppress(RefusedError):
            await self.create(self._owner)
        return await self._control.GetService(control_pb2.GetServiceRequest(service=self._owner))


@contextlib.contextmanager
def _refusals() -> contextlib.AbstractContextManager[None]:  # type: ignore[misc]
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise RefusedError(error.details()) from error


@contextlib.asynccontextmanager
async def started() -> AsyncIterator[Pyswarm]:
    """Three managers that all vote."""
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as directory:
        async with manager_cluster(Path(directory)) as cluster:
            await cluster.start_three()
            yield Pyswarm(cluster)
