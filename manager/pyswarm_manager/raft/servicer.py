"""The Raft service of a manager: messages from other managers, handed to the node.

Who may call it at all (managers of this cluster, by certificate) is the interceptor's decision. Here it is checked that
the caller means this manager and was not removed. A manager that this one has not heard of is let in: when a member
lags, its leader may be newer than its configuration, and it could never catch up otherwise. It says where it can be
answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from pyswarm.v1 import raft_pb2 as pb
from pyswarm.v1 import raft_pb2_grpc
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.raft.transport import ACCEPTED_KEY, REMOVED_KEY
from pyswarm_manager.raft.wire import assemble_snapshot, decode

MAX_SNAPSHOT_BYTES = 1024 * 1024 * 1024
"""What a snapshot may claim to be; more is refused before it is received."""

Context = grpc.aio.ServicerContext[Any, Any]


class RaftServicer(raft_pb2_grpc.RaftServicer):
    """Registered on the manager's server, beside the other services."""

    def __init__(self, node: RaftNode, cluster_id: str) -> None:
        self._node, self._cluster_id = node, cluster_id

    async def Exchange(  # noqa: N802  gRPC's name
        self, request_iterator: AsyncIterator[pb.RaftBatch], context: Context
    ) -> pb.RaftExchangeEnd:
        """Hand over what comes, batch by batch, until the caller goes."""
        peers: pb.RaftPeers | None = None
        async for batch in request_iterator:
            if peers is None:
                peers = batch.peers
                await self._check(peers, context)
                await context.send_initial_metadata(((ACCEPTED_KEY, "1"),))
            elif self._node.is_removed(peers.sender):
                await self._refuse_removed(context)
            await self._node.receive([decode(message, peers.sender, peers.receiver) for message in batch.messages])
        return pb.RaftExchangeEnd()

    async def InstallSnapshot(  # noqa: N802  gRPC's name
        self, request_iterator: AsyncIterator[pb.RaftSnapshotChunk], context: Context
    ) -> pb.RaftInstallSnapshotResponse:
        """Gather a snapshot and hand it over whole."""
        first: pb.RaftSnapshotChunk | None = None
        data = bytearray()
        async for chunk in request_iterator:
            if first is None:
                first = chunk
                await self._check(chunk.peers, context)
                if chunk.header.size > MAX_SNAPSHOT_BYTES:
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the snapshot is too large")
            data += chunk.data
            if len(data) > first.header.size:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the snapshot is longer than it said")
        if first is None or len(data) != first.header.size:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the snapshot ended early")
        await self._node.receive([assemble_snapshot(first.peers, first.header, bytes(data))])
        return pb.RaftInstallSnapshotResponse()

    async def _check(self, peers: pb.RaftPeers, context: Context) -> None:
        if peers.cluster_id != self._cluster_id:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this manager belongs to another cluster")
        if peers.receiver != self._node.raft_id:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another manager has this address now")
        if self._node.is_removed(peers.sender):
            await self._refuse_removed(context)
        self._node.learn_peer(peers.sender, peers.sender_address)

    async def _refuse_removed(self, context: Context) -> None:
        sentence = "this manager was removed from the cluster: let it join with a fresh state directory"
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, sentence, ((REMOVED_KEY, "1"),))
