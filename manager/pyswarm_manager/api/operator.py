"""The operator's API: who the managers are, how far each has come, and whether they hold the same.

The list of peers, the transfer of leadership and the comparison of replicas are the leader's; the state of one member
and its store are told by whoever is asked. Nothing here changes an object. What the replicas say of a checkpoint is
collected in `replicas`.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import asyncio
from typing import Protocol

from pyswarm.v1 import operator_pb2 as pb
from pyswarm.v1 import operator_pb2_grpc
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import FailedPrecondition, InvalidArgument, Unavailable
from pyswarm_common.model import Node
from pyswarm_manager.api.caller import Context, caller_of, require_manager
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.api.peers import list_peers
from pyswarm_manager.api.replicas import DIGEST_TIMEOUT_S, check_replicas
from pyswarm_manager.managers.quorum import is_heard
from pyswarm_manager.ports import IdentityProvider, RaftPort
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.raft.inspection import RaftReport
from pyswarm_manager.store.checkpoints import Checkpoints, let_others_run
from pyswarm_manager.store.digest import Frozen, digest_of, freeze
from pyswarm_manager.store.lookup import find_node
from pyswarm_manager.store.sizes import ObjectSize, list_objects, measure
from pyswarm_manager.store.tables import Kind
from pyswarm_manager.writes import StorePort

DEFAULT_OBJECTS = 1_000
MAX_OBJECTS = 20_000
"""More would be larger than a message may be."""


class InspectedRaft(RaftPort, Protocol):
    """What is needed of Raft beside what every part of the API needs."""

    def inspect(self) -> RaftReport: ...
    async def wait_applied(self, index: int) -> None: ...


class InspectedStore(StorePort, Protocol):
    """What is needed of the store."""

    checkpoints: Checkpoints


class OperatorServicer(operator_pb2_grpc.OperatorServicer):
    """Serves Operator."""

    def __init__(
        self, store: InspectedStore, raft: InspectedRaft, forwarder: LeaderForwarder, identity: IdentityProvider
    ) -> None:
        self._store, self._raft, self._identity = store, raft, identity
        self._calls = Calls("Operator", store, raft, forwarder)

    # ---- Raft

    async def ListPeers(self, request: pb.ListPeersRequest, context: Context) -> pb.ListPeersResponse:
        async def local() -> pb.ListPeersResponse:
            report = self._raft.inspect()
            return pb.ListPeersResponse(
                peers=list_peers(self._store.view, self._raft.members, report),
                term=report.term,
                last_index=report.last_index,
                commit_index=report.commit_index,
            )

        return await self._calls.on_leader(context, "ListPeers", request, pb.ListPeersResponse, local, is_read=True)

    async def GetRaftState(self, request: pb.GetRaftStateRequest, context: Context) -> pb.GetRaftStateResponse:
        raft, report, view = self._raft, self._raft.inspect(), self._store.view
        require_manager(caller_of(context), view.nodes)
        return pb.GetRaftStateResponse(
            node_id=self._identity().node_id,
            raft_id=raft.raft_id,
            role=report.role,
            term=report.term,
            vote=report.vote,
            leader_raft_id=raft.leader_id or 0,
            leader_address=raft.leader_address or "",
            last_index=report.last_index,
            commit_index=report.commit_index,
            applied_index=raft.applied_index,
            snapshot_index=report.snapshot_index,
            snapshot_term=report.snapshot_term,
            log_entries=report.log_entries,
            log_bytes=report.log_bytes,
            pending_proposals=report.pending_proposals,
            pending_bytes=report.pending_bytes,
            store_index=view.index,
            members=list_peers(view, raft.members, report),
            disk=report.disk,
        )

    async def TransferLeadership(
        self, request: pb.TransferLeadershipRequest, context: Context
    ) -> pb.TransferLeadershipResponse:
        async def local() -> pb.TransferLeadershipResponse:
            return await self._transfer(request.node)

        return await self._calls.on_leader(context, "TransferLeadership", request, pb.TransferLeadershipResponse, local)

    async def _transfer(self, name: str) -> pb.TransferLeadershipResponse:
        target = self._successor(find_node(self._store.view, name)) if name else None
        is_unchanged = target == self._raft.raft_id
        if not is_unchanged:
            await self._store.propose(())  # nothing but the record of who asked
            await self._raft.transfer_leadership(target)
        response = pb.TransferLeadershipResponse(address=self._raft.leader_address or "", unchanged=is_unchanged)
        for node in self._store.view.nodes.values():
            if node.manager_status is not None and node.manager_status.raft_id == self._raft.leader_id:
                response.node_id, response.hostname = node.id, node.description.hostname
        return response

    def _successor(self, node: Node) -> int:
        """The node's raft id. Refused if it could not lead."""
        name = node.description.hostname or node.id
        status = node.manager_status
        member = self._raft.members.get(status.raft_id) if status is not None else None
        if status is None or member is None:
            raise FailedPrecondition(f"node {name} is not a manager, so it cannot lead: promote it first")
        if member.role is not MemberRole.VOTER:
            raise FailedPrecondition(
                f"node {name} does not vote yet, so it cannot lead: try again when it has caught up"
            )
        if not is_heard(member):
            raise FailedPrecondition(f"node {name} is not reachable, so it cannot lead: start it first")
        return status.raft_id

    # ---- the store

    async def InspectStore(self, request: pb.InspectStoreRequest, context: Context) -> pb.InspectStoreResponse:
        require_manager(caller_of(context), self._store.view.nodes)
        kind = _kind(request.kind)
        frozen = freeze(self._store.view)
        return await asyncio.to_thread(_inspected, frozen, kind, min(request.limit or DEFAULT_OBJECTS, MAX_OBJECTS))

    async def CheckReplicas(self, request: pb.CheckReplicasRequest, context: Context) -> pb.CheckReplicasResponse:
        async def local() -> pb.CheckReplicasResponse:
            return await check_replicas(self._store, self._raft, self._identity)

        return await self._calls.on_leader(
            context, "CheckReplicas", request, pb.CheckReplicasResponse, local, is_read=True
        )

    async def GetDigest(self, request: pb.GetDigestRequest, context: Context) -> pb.GetDigestResponse:
        require_manager(caller_of(context), self._store.view.nodes)
        try:
            async with asyncio.timeout(DIGEST_TIMEOUT_S):
                await self._raft.wait_applied(request.index)
        except TimeoutError:
            raise Unavailable(f"index {request.index} is not applied here yet") from None
        return pb.GetDigestResponse(digest=await self._store.checkpoints.digest_at(request.index))


def _kind(text: str) -> Kind | None:
    if not text:
        return None
    try:
        return Kind(text.lower().replace("-", "_").removesuffix("s"))
    except ValueError:
        known = ", ".join(kind.value for kind in Kind)
        raise InvalidArgument(f"there is no kind {text[:64]!r}: choose one of {known}") from None


def _inspected(frozen: Frozen, kind: Kind | None, limit: int) -> pb.InspectStoreResponse:
    response = pb.InspectStoreResponse(index=frozen.index, digest=digest_of(frozen, let_others_run))
    for size in measure(frozen):
        row = response.kinds.add(kind=size.kind, objects=size.objects, bytes=size.size_bytes)
        row.largest.extend(_stored(item) for item in size.largest)
    if kind is not None:
        response.objects.extend(_stored(item) for item in list_objects(frozen, kind, limit))
    return response


def _stored(item: ObjectSize) -> pb.StoredObject:
    stored = pb.StoredObject(
        kind=item.kind, id=item.id, name=item.name, bytes=item.size_bytes, version=item.meta.version
    )
    set_timestamp(stored.updated_at, item.meta.updated_at)
    return stored
