"""What this node serves to the others: logs of its tasks to managers, images to any node of the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc

from pyswarm.v1 import agent_pb2, agent_pb2_grpc, exec_pb2, logs_pb2, network_checks_pb2
from pyswarm_common.codec import set_timestamp, timestamp
from pyswarm_common.errors import InvalidArgument, NotFound, Unavailable
from pyswarm_common.identity import NodeIdentity, ServedIdentity
from pyswarm_common.rpc import TLS_SERVER_OPTIONS, Caller, GuardInterceptor, Table
from pyswarm_common.rpc.peers import PeerGate

from .entering import Entering, container_of_task
from .network_checks import NetworkChecks, NetworkInspector
from .ports import ContainerAccess, ContainerRuntime, ImageStore
from .tasks import Tasks

_MANAGERS = frozenset({Caller.MANAGER})
_NODES = frozenset({Caller.MANAGER, Caller.WORKER})
_MAX_STREAMS = 256

AGENT_TABLE: Table = {
    "/pyswarm.v1.Agent/ReadTaskLogs": _MANAGERS,
    "/pyswarm.v1.Agent/RunInTask": _MANAGERS,
    "/pyswarm.v1.Agent/CopyFromTask": _MANAGERS,
    "/pyswarm.v1.Agent/CopyToTask": _MANAGERS,
    "/pyswarm.v1.Agent/VerifyNetworks": _MANAGERS,
    "/pyswarm.v1.Agent/TraceSource": _MANAGERS,
    "/pyswarm.v1.Agent/TraceTarget": _MANAGERS,
    "/pyswarm.v1.Agent/GetImage": _NODES,
    "/pyswarm.v1.Agent/ReadBlob": _NODES,
    "/pyswarm.v1.Agent/GetManagers": _NODES,
}
_STREAMS = {"stdout": logs_pb2.LogMessage.STREAM_STDOUT, "stderr": logs_pb2.LogMessage.STREAM_STDERR}
_CONFIG_MEDIA_TYPE = "application/vnd.oci.image.config.v1+json"


class AgentServicer(agent_pb2_grpc.AgentServicer):
    """Answers managers and other nodes. Changes nothing but, for managers, what is in a task's container."""

    def __init__(
        self,
        tasks: Tasks,
        runtime: ContainerRuntime,
        images: ImageStore,
        node: Callable[[], tuple[str, str]],
        gate: PeerGate | None = None,
        managers: Callable[[], Sequence[str]] = tuple,
        access: ContainerAccess | None = None,
        inspector: NetworkInspector | None = None,
    ) -> None:
        """`node` gives (node id, host name); `gate` knows whom to refuse; `managers`: whom this node knows; without
        `access` no container can be entered, without `inspector` no network looked at."""
        self.gate = gate
        self._managers = managers
        self._tasks = tasks
        self._runtime = runtime
        self._images = images
        self._node = node
        self._checks = NetworkChecks(inspector)
        self._entering = Entering(access, container_of_task(tasks.get, tasks.container_of))

    def RunInTask(  # noqa: N802
        self, request_iterator: AsyncIterator[exec_pb2.ExecInput], context: Any
    ) -> AsyncIterator[exec_pb2.ExecOutput]:
        return self._entering.run(request_iterator)

    def CopyFromTask(  # noqa: N802
        self, request: exec_pb2.CopyFromRequest, context: Any
    ) -> AsyncIterator[exec_pb2.ArchiveChunk]:
        return self._entering.copy_from(request)

    async def CopyToTask(  # noqa: N802
        self, request_iterator: AsyncIterator[exec_pb2.CopyToRequest], context: Any
    ) -> exec_pb2.CopyToResponse:
        await self._entering.copy_to(request_iterator)
        return exec_pb2.CopyToResponse()

    async def VerifyNetworks(  # noqa: N802
        self, request: network_checks_pb2.VerifyNetworksRequest, context: Any
    ) -> network_checks_pb2.NodeNetworks:
        answer = await self._checks.verify(request)
        answer.node_id, answer.node_hostname = self._node()
        return answer

    async def TraceSource(  # noqa: N802
        self, request: network_checks_pb2.TraceSourceRequest, context: Any
    ) -> network_checks_pb2.TraceSourceResponse:
        return await self._checks.source(request)

    async def TraceTarget(  # noqa: N802
        self, request: network_checks_pb2.TraceTargetRequest, context: Any
    ) -> network_checks_pb2.TraceTargetResponse:
        return await self._checks.target(request)

    async def ReadTaskLogs(  # noqa: N802 - named by the protocol
        self, request: agent_pb2.ReadTaskLogsRequest, context: Any
    ) -> AsyncIterator[logs_pb2.LogMessage]:
        task = self._tasks.get(request.task_id)
        container_id = self._tasks.container_of(request.task_id)
        if task is None or container_id is None:
            raise NotFound(f"task {request.task_id} has no container on this node")
        records = self._runtime.logs(
            container_id,
            follow=request.follow,
            tail=request.tail if request.HasField("tail") else None,
            since=timestamp(request.since) if request.HasField("since") else None,
        )
        node_id, hostname = self._node()
        async for record in records:
            message = logs_pb2.LogMessage(task_id=task.id, task_name=task.name, node_id=node_id, node_hostname=hostname)
            message.stream = _STREAMS[record.stream]
            message.data = record.data
            set_timestamp(message.timestamp, record.timestamp)
            yield message

    async def GetImage(  # noqa: N802
        self, request: agent_pb2.GetImageRequest, context: Any
    ) -> agent_pb2.GetImageResponse:
        manifest = await self._images.manifest(request.reference)
        response = agent_pb2.GetImageResponse(reference=manifest.reference, manifest=manifest.manifest_bytes)
        response.blobs.add(
            digest=manifest.config_digest, size_bytes=manifest.config_size, media_type=_CONFIG_MEDIA_TYPE
        )
        for layer in manifest.layers:
            response.blobs.add(digest=layer.digest, size_bytes=layer.size, media_type=layer.media_type)
        return response

    async def ReadBlob(  # noqa: N802
        self, request: agent_pb2.ReadBlobRequest, context: Any
    ) -> AsyncIterator[agent_pb2.BlobChunk]:
        if request.offset < 0:
            raise InvalidArgument("the offset is negative")
        if not await self._images.has_blob(request.digest):
            raise NotFound(f"blob {request.digest} is not on this node")
        async for chunk in self._images.read_blob(request.digest, request.offset):
            yield agent_pb2.BlobChunk(data=chunk)

    async def GetManagers(  # noqa: N802
        self, request: agent_pb2.GetManagersRequest, context: Any
    ) -> agent_pb2.GetManagersResponse:
        return agent_pb2.GetManagersResponse(addresses=self._managers())


class AgentServer:
    """The mTLS server. `start` it again with another identity: new connections use that, streams go on."""

    def __init__(self, servicer: AgentServicer, address: str) -> None:
        self._servicer = servicer
        self._address = address
        self._server: grpc.aio.Server | None = None
        self._served: ServedIdentity | None = None
        self._port = 0

    async def start(self, identity: NodeIdentity) -> int:
        """Returns the port."""
        if self._served is not None:
            self._served.replace(identity)
            return self._port
        served, cluster_id = ServedIdentity(identity), identity.cluster_id
        guard = GuardInterceptor(AGENT_TABLE, lambda: cluster_id, gate=self._servicer.gate)
        server = grpc.aio.server(interceptors=[guard], options=TLS_SERVER_OPTIONS, maximum_concurrent_rpcs=_MAX_STREAMS)
        agent_pb2_grpc.add_AgentServicer_to_server(self._servicer, server)
        try:
            port = server.add_secure_port(self._address, served.credentials())
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {self._address}: is another program using that port?") from error
        await server.start()
        self._server, self._served, self._port = server, served, port
        return port

    async def stop(self) -> None:
        """Streams under way (logs, layers) are cut: their readers resume."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = self._served = None
