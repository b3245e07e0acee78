"""A peer's Agent service over mTLS, as the image fetcher sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pyswarm.v1 import agent_pb2, agent_pb2_grpc
from pyswarm_common.identity import NODE_SERVER_NAME, NodeIdentity
from pyswarm_common.rpc import open_channel

from .images import Connect, Peer

_ANSWER_TIMEOUT_S = 10.0


class GrpcPeer:
    """One channel to one agent."""

    def __init__(self, stub: agent_pb2_grpc.AgentAsyncStub) -> None:
        self._stub = stub

    async def get_image(self, reference: str) -> agent_pb2.GetImageResponse:
        return await self._stub.GetImage(agent_pb2.GetImageRequest(reference=reference), timeout=_ANSWER_TIMEOUT_S)

    async def read_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        async for chunk in self._stub.ReadBlob(agent_pb2.ReadBlobRequest(digest=digest, offset=offset)):
            yield chunk.data


def connector(identity: Callable[[], NodeIdentity]) -> Connect:
    """Connects with the identity the node has at that moment."""

    @asynccontextmanager
    async def connect(address: str) -> AsyncIterator[Peer]:
        async with open_channel(address, identity(), NODE_SERVER_NAME) as channel:
            yield GrpcPeer(agent_pb2_grpc.AgentStub(channel))

    return connect
