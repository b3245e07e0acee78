"""The Raft service of a manager: messages from other managers, handed to the node.

Who may call it at all (managers of this cluster, by certificate) is the interceptor's decision. Here it is checked that
the caller means this manager, was not removed, and may speak under its raft id (`Admission`). A manager that this one
has not heard of may be let in: when a member lags, its leader may be newer than its configuration, and it could never
catch up otherwise. It says where it can be answered.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from pyswarm.v1 import raft_pb2 as pb
from pyswarm.v1 import raft_pb2_grpc
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.rpc import peer_of
from pyswarm_manager.raft.core.messages import Message
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.raft.lanes.receiving import Lanes, Offer
from pyswarm_manager.raft.peer import ACCEPTED_KEY, LANE_KEY, REMOVED_KEY
from pyswarm_manager.raft.wire import assemble_snapshot, decode

_log = logging.getLogger(__name__)

MAX_SNAPSHOT_BYTES = 1024 * 1024 * 1024
"""What a snapshot may claim to be; more is refused before it is received."""

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = tuple[tuple[str, str | bytes], ...]


class Admission(Protocol):
    """Who may speak under which raft id. `version` changes when that may have changed."""

    version: int

    def refusal(self, raft_id: int, node_id: str) -> str | None:
        """Why the node may not; None if it may."""
        ...


class Announcements(Protocol):
    """Takes what other managers announce of where they are, and answers with what is known here."""

    def exchange(self, announcements: Sequence[pb.RaftAnnouncement]) -> list[pb.RaftAnnouncement]: ...


class RaftServicer(raft_pb2_grpc.RaftServicer):
    """Registered on the manager's server, beside the other services."""

    def __init__(
        self,
        node: RaftNode,
        cluster_id: str,
        admission: Admission | None = None,
        announcements: Announcements | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        """Without `admission` callers are not told apart: for members that have no certificates. Without `lanes` all
        messages come by gRPC."""
        self._node, self._cluster_id = node, cluster_id
        self._admission, self._announcements, self._lanes = admission, announcements, lanes
        self._told = ""

    async def Exchange(  # noqa: N802  gRPC's name
        self, request_iterator: AsyncIterator[pb.RaftBatch], context: Context
    ) -> pb.RaftExchangeEnd:
        """Hand over what comes, batch by batch, until the caller goes."""
        async for first in request_iterator:
            await self._check(first.peers, context)
            node_id = "" if self._admission is None else peer_of(context).node_id
            speaker = _Speaker(self._node, self._admission, first.peers, node_id)
            offer = self._lanes.offer(speaker) if self._lanes is not None else None
            try:
                await context.send_initial_metadata(_greeting(offer))
                await self._node.receive(speaker.decoded(first))
                await self._listen(speaker, request_iterator, context)
            finally:
                if offer is not None:
                    offer.close()
        return pb.RaftExchangeEnd()

    async def _listen(self, speaker: _Speaker, batches: AsyncIterator[pb.RaftBatch], context: Context) -> None:
        """Whatever comes after the first batch."""
        async for batch in batches:
            if not speaker.may_go_on():
                await self._check(speaker.peers, context)
            await self._node.receive(speaker.decoded(batch))

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

    async def Announce(  # noqa: N802  gRPC's name
        self, request: pb.RaftAnnounceRequest, context: Context
    ) -> pb.RaftAnnounceResponse:
        """Where managers are: each announcement is believed by its own signature, whoever brings it. Who asks and was
        removed hears so here too: it may know nobody else whom it could ask."""
        if self._announcements is None:
            return pb.RaftAnnounceResponse()
        return pb.RaftAnnounceResponse(
            announcements=self._announcements.exchange(request.announcements),
            is_sender_removed=self._node.is_removed(request.sender),
        )

    async def _check(self, peers: pb.RaftPeers, context: Context) -> None:
        if peers.cluster_id != self._cluster_id:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this manager belongs to another cluster")
        if peers.receiver != self._node.raft_id:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another manager has this address now")
        if self._node.is_removed(peers.sender):
            await self._refuse_removed(context)
        await self._check_speaker(peers, context)
        self._node.learn_peer(peers.sender, peers.sender_address)

    async def _check_speaker(self, peers: pb.RaftPeers, context: Context) -> None:
        if self._admission is None:
            return
        node_id = peer_of(context).node_id
        refusal = self._admission.refusal(peers.sender, node_id)
        if refusal is not None:
            if refusal != self._told:  # it dials again several times a second
                self._told = refusal
                _log.warning("a manager was refused: %s", refusal)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)

    async def _refuse_removed(self, context: Context) -> None:
        sentence = "this manager was removed from the cluster: let it join with a fresh state directory"
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, sentence, ((REMOVED_KEY, "1"),))


class _Speaker:
    """Who speaks on a stream and on its lane, as it was let in."""

    def __init__(self, node: RaftNode, admission: Admission | None, peers: pb.RaftPeers, node_id: str) -> None:
        self.peers = peers
        self._node, self._admission, self._node_id = node, admission, node_id
        self._version = admission.version if admission is not None else 0

    def may_go_on(self) -> bool:
        """Whether it would still be let in."""
        if self._node.is_removed(self.peers.sender):
            return False
        if self._admission is None or self._admission.version == self._version:
            return True
        self._version = self._admission.version
        return self._admission.refusal(self.peers.sender, self._node_id) is None

    def decoded(self, batch: pb.RaftBatch) -> list[Message]:
        """Raises InvalidArgument for what this version does not know."""
        return [decode(message, self.peers.sender, self.peers.receiver) for message in batch.messages]

    def take(self, batch: bytes) -> bool:
        """One batch of the lane. What is wrong with it, or with the speaker, the stream says: the sender goes back to
        it once the lane is gone."""
        if not self.may_go_on():
            self._version = -1  # the stream looks again, and refuses
            return False
        try:
            self._node.take(self.decoded(pb.RaftBatch.FromString(batch)))
        except (DecodeError, InvalidArgument) as error:
            _log.warning("a lane of manager %x is closed: %s", self.peers.sender, error)
            return False
        return True

    def call_when_room(self, callback: Callable[[], None]) -> bool:
        return self._node.call_when_room(callback)


def _greeting(offer: Offer | None) -> Metadata:
    accepted: Metadata = ((ACCEPTED_KEY, "1"),)
    return accepted if offer is None else (*accepted, (LANE_KEY, offer.ticket))
