"""A peer's Agent service over mTLS, as the image fetcher sees it, and whoever looks for managers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from pyswarm.v1 import agent_pb2, agent_pb2_grpc
from pyswarm_common.identity import NODE_SERVER_NAME, NodeIdentity
from pyswarm_common.rpc import open_channel

from .images import Peer
from .inquiries import Informant

_ANSWER_TIMEOUT_S = 10.0


class AgentPeer(Peer, Informant, Protocol):
    """What nodes ask of one another."""


ConnectAgent = Callable[[str], AbstractAsyncContextManager[AgentPeer]]
"""Connects to the agent at an address."""


class GrpcPeer:
    """One channel to one agent."""

    def __init__(self, stub: agent_pb2_grpc.AgentAsyncStub) -> None:
        self._stub = stub

    async def get_image(self, reference: str) -> agent_pb2.GetImageResponse:
        return await self._stub.GetImage(agent_pb2.GetImageRequest(reference=reference), timeout=_ANSWER_TIMEOUT_S)

    async def get_managers(self) -> agent_pb2.GetManagersResponse:
        return await self._stub.GetManagers(agent_pb2.GetManagersRequest(), timeout=_ANSWER_TIMEOUT_S)

    async def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        async for chunk in self._stub.ReadBlob(agent_pb2.ReadBlobRequest(digest=digest, offset=offset)):
            yield chunk.data


def connector(identity: Callable[[], NodeIdentity]) -> ConnectAgent:
    """Connects with the identity the node has at that moment."""

    @asynccontextmanager
    async def connect(address: str) -> AsyncIterator[AgentPeer]:
        async with open_channel(address, identity(), NODE_SERVER_NAME) as channel:
            yield GrpcPeer(agent_pb2_grpc.AgentStub(channel))

    return connect
