"""The CA service: certificates and membership, by gRPC for nodes and (through `ca.https`) for machines to be.

Everything but the root certificate is the leader's to decide, so it goes through the forwarder. A leader that is asked
to let itself leave hands over first, and the next leader takes it out.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from pyswarm.v1 import ca_pb2, ca_pb2_grpc
from pyswarm_common.errors import Unauthenticated
from pyswarm_common.ids import IdSource
from pyswarm_common.rpc import Caller, Peer, peer_of
from pyswarm_manager.api.caller import ANYONE_PEER, Context, caller_of, forwarded_by, require_manager
from pyswarm_manager.api.forward import LeaderForwarder, refuse_forwarded
from pyswarm_manager.ca import issuing, membership, renewal
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.writes import StorePort, Writer, cluster_of

R = TypeVar("R", bound=Message)
_SERVICE = "/pyswarm.v1.CA/"


class CAServicer(ca_pb2_grpc.CAServicer):
    """Serves CA."""

    def __init__(
        self,
        store: StorePort,
        raft: RaftPort,
        forwarder: LeaderForwarder,
        ids: IdSource,
        clock: Clock,
        manager_changes: asyncio.Lock | None = None,
    ) -> None:
        self._raft, self._forwarder = raft, forwarder
        self._writer = Writer(store, raft, ids, clock, manager_changes or asyncio.Lock())
        self._turns = asyncio.Lock()

    # ---- for machines without a certificate

    def root_certificate(self) -> ca_pb2.GetRootCertificateResponse:
        cluster = cluster_of(self._writer)
        rotation = cluster.root_rotation
        return ca_pb2.GetRootCertificateResponse(
            root_ca_cert=cluster.root_ca_cert,
            next_root_ca_cert=b"" if rotation is None else rotation.root_ca_cert,
        )

    async def issue(
        self, request: ca_pb2.IssueCertificateRequest, asker: Peer = ANYONE_PEER
    ) -> ca_pb2.IssueCertificateResponse:
        """A certificate for whoever holds a join token."""
        return await self._forwarder.on_leader(
            _SERVICE + "IssueCertificate",
            request,
            ca_pb2.IssueCertificateResponse,
            asker,
            lambda: issuing.issue(self._writer, request, self._turns),
        )

    async def renew_expired(self, request: ca_pb2.RenewExpiredRequest) -> ca_pb2.RenewCertificateResponse:
        """A certificate for a node of the swarm that slept through the end of its last one. Every manager tells those
        that were removed, who may ask just for that: no TLS lets them in once the root has been replaced."""
        renewal.refuse_removed(self._writer.store.view, request)
        return await self._forwarder.on_leader(
            _SERVICE + "RenewExpired",
            request,
            ca_pb2.RenewCertificateResponse,
            ANYONE_PEER,
            lambda: renewal.renew_expired(self._writer, request),
        )

    # ---- gRPC

    async def GetRootCertificate(
        self, request: ca_pb2.GetRootCertificateRequest, context: Context
    ) -> ca_pb2.GetRootCertificateResponse:
        return self.root_certificate()

    async def IssueCertificate(
        self, request: ca_pb2.IssueCertificateRequest, context: Context
    ) -> ca_pb2.IssueCertificateResponse:
        await self._check_hop(context)
        return await self.issue(request, caller_of(context))

    async def RenewExpired(
        self, request: ca_pb2.RenewExpiredRequest, context: Context
    ) -> ca_pb2.RenewCertificateResponse:
        await self._check_hop(context)
        return await self.renew_expired(request)

    async def RenewCertificate(
        self, request: ca_pb2.RenewCertificateRequest, context: Context
    ) -> ca_pb2.RenewCertificateResponse:
        caller = _node_of(context)
        return await self._on_leader(
            context,
            "RenewCertificate",
            request,
            ca_pb2.RenewCertificateResponse,
            lambda: issuing.renew(self._writer, request.csr, caller),
        )

    async def JoinRaft(self, request: ca_pb2.JoinRaftRequest, context: Context) -> ca_pb2.JoinRaftResponse:
        caller = _node_of(context)
        return await self._on_leader(
            context,
            "JoinRaft",
            request,
            ca_pb2.JoinRaftResponse,
            lambda: membership.join_raft(self._writer, request, caller),
        )

    async def Leave(self, request: ca_pb2.LeaveRequest, context: Context) -> ca_pb2.LeaveResponse:
        caller = _node_of(context)
        await self._check_hop(context)
        if request.force and self._leads_as(caller) and len(self._raft.members) > 1:
            await self._raft.transfer_leadership()
        return await self._on_leader(
            context,
            "Leave",
            request,
            ca_pb2.LeaveResponse,
            lambda: membership.leave(self._writer, request, caller),
        )

    # ---- shared

    def _leads_as(self, caller: Peer) -> bool:
        node = self._writer.store.view.nodes.get(caller.node_id)
        status = node.manager_status if node is not None else None
        return self._raft.is_leader and status is not None and status.raft_id == self._raft.raft_id

    async def _on_leader(
        self,
        context: Context,
        method: str,
        request: Message,
        response_type: type[R],
        local: Callable[[], Awaitable[R]],
    ) -> R:
        await self._check_hop(context)
        return await self._forwarder.on_leader(_SERVICE + method, request, response_type, caller_of(context), local)

    async def _check_hop(self, context: Context) -> None:
        """A request that was passed on: only once, and only by a manager that still is one."""
        if not forwarded_by(context):
            return
        if not self._raft.is_leader:
            await refuse_forwarded(context)
        require_manager(peer_of(context), self._writer.store.view.nodes)


def _node_of(context: Context) -> Peer:
    """The node that asks for itself."""
    caller = caller_of(context)
    if caller.caller not in (Caller.WORKER, Caller.MANAGER) or not caller.node_id:
        raise Unauthenticated("only a node of the swarm can ask this for itself")
    return caller
