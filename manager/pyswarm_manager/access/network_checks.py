"""Whether the networks of nodes are as they should be: asked of their agents, from any manager.

Decides which nodes are meant and what is said of one that cannot be asked. The agents look and repair; which version of
a network's table holds now, the leader's dispatcher knows. Bounded: a few nodes at a time, a few callers at once.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import grpc

from pyswarm.v1 import agent_pb2_grpc, network_checks_pb2, network_checks_pb2_grpc
from pyswarm_common.errors import Exhausted, Unavailable
from pyswarm_common.model import Node, NodeState
from pyswarm_common.rpc import open_channel
from pyswarm_manager.access.tracing import Tracer
from pyswarm_manager.api.caller import Context, caller_of, require_manager
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.log_stream import Agents, OpenChannel
from pyswarm_manager.ports import IdentityProvider, RaftPort
from pyswarm_manager.store.lookup import find_node
from pyswarm_manager.writes import StorePort

pb = network_checks_pb2
MAX_OPEN = 16
"""Verifications and traces at once on one manager."""
NODES_AT_ONCE = 16
VERIFY_TIMEOUT_S = 60.0
Versions = Callable[[], Mapping[str, int]]


class NetworkChecksServicer(network_checks_pb2_grpc.NetworkChecksServicer):
    """Serves NetworkChecks. `versions`: of the tables, on the leader; raises NotLeading elsewhere."""

    def __init__(
        self,
        store: StorePort,
        raft: RaftPort,
        forwarder: LeaderForwarder,
        identity: IdentityProvider,
        versions: Versions,
        open_agent: OpenChannel = open_channel,
    ) -> None:
        self._store, self._identity, self._versions, self._open_agent = store, identity, versions, open_agent
        self._calls = Calls("NetworkChecks", store, raft, forwarder)
        self._open = 0

    async def VerifyNetworks(
        self, request: pb.VerifyNetworksRequest, context: Context
    ) -> AsyncIterator[pb.NodeNetworks]:
        require_manager(caller_of(context), self._store.view.nodes)
        view = self._store.view
        nodes = [find_node(view, request.node)] if request.node else list(view.nodes.values())
        versions = await self._current(context)
        async with self._agents() as agents:
            slots = asyncio.Semaphore(NODES_AT_ONCE)
            asking = [asyncio.ensure_future(_verified(node, request, agents, slots)) for node in nodes]
            try:
                for done in asyncio.as_completed(asking):
                    answer = await done
                    for table in answer.tables:
                        table.current = versions.get(table.network_id, 0)
                    yield answer
            finally:
                for call in asking:
                    call.cancel()
                await asyncio.gather(*asking, return_exceptions=True)

    async def TraceNetwork(self, request: pb.TraceNetworkRequest, context: Context) -> AsyncIterator[pb.TraceStep]:
        require_manager(caller_of(context), self._store.view.nodes)
        async with self._agents() as agents:
            async for step in Tracer(self._store.view, agents).run(request):
                yield step

    async def GetTableVersions(
        self, request: pb.GetTableVersionsRequest, context: Context
    ) -> pb.GetTableVersionsResponse:
        async def local() -> pb.GetTableVersionsResponse:
            return pb.GetTableVersionsResponse(versions=self._versions())

        return await self._calls.on_leader(
            context, "GetTableVersions", request, pb.GetTableVersionsResponse, local, is_read=True
        )

    async def _current(self, context: Context) -> Mapping[str, int]:
        """Asked before the nodes are: whoever has less then is behind. None without a leader."""
        try:
            answer = await self.GetTableVersions(pb.GetTableVersionsRequest(), context)
        except Unavailable:
            return {}
        return answer.versions

    def _agents(self) -> _Open:
        return _Open(self)

    def begin(self) -> Agents:
        """Raises Exhausted where too many ask already."""
        if self._open >= MAX_OPEN:
            raise Exhausted(f"{MAX_OPEN} network checks are under way on this manager: try again, or ask another one")
        self._open += 1
        return Agents(self._identity, self._open_agent)

    def end(self) -> None:
        self._open -= 1


class _Open:
    """One call's channels, counted while they are open."""

    def __init__(self, servicer: NetworkChecksServicer) -> None:
        self._servicer = servicer
        self._agents: Agents | None = None

    async def __aenter__(self) -> Agents:
        self._agents = self._servicer.begin()
        return self._agents

    async def __aexit__(self, *_: object) -> None:
        assert self._agents is not None
        self._servicer.end()
        await self._agents.close()


async def _verified(
    node: Node, request: pb.VerifyNetworksRequest, agents: Agents, slots: asyncio.Semaphore
) -> pb.NodeNetworks:
    """What the node answers, or why it cannot be asked."""
    name = node.description.hostname or node.id
    answer = pb.NodeNetworks()
    async with slots:
        if node.status.state is NodeState.DOWN:
            answer.away = f"node {name} is down"
        elif not node.description.agent_address:
            answer.away = f"node {name} has not said yet where its agent is"
        else:
            try:
                channel = await agents.connected(node.description.agent_address)
                stub = agent_pb2_grpc.AgentStub(channel)
                asked = pb.VerifyNetworksRequest(dry_run=request.dry_run)
                answer = await stub.VerifyNetworks(asked, timeout=VERIFY_TIMEOUT_S)
            except TimeoutError:
                answer.away = f"the agent of node {name} does not answer"
            except grpc.aio.AioRpcError as error:
                answer.away = f"node {name}: {error.details() or error.code().name}"
    answer.node_id, answer.node_hostname = node.id, name
    return answer
