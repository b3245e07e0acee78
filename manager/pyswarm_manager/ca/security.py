"""The Security service: join tokens with limits, and the root's replacement. Everything in it is the leader's, but the
unlock key: while there is no leader, a manager tells the one that it knows.

Serves on every manager; decides nothing: `ca.tokens` and `ca.rotation` do. Requests may hold a CA's key, and answers a
new token: neither is ever logged.
"""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import grpc

from pyswarm.v1 import security_pb2 as pb
from pyswarm.v1 import security_pb2_grpc
from pyswarm_common.errors import Unavailable
from pyswarm_common.ids import IdSource
from pyswarm_manager import unlocking
from pyswarm_manager.api.caller import Context, forwarded_by
from pyswarm_manager.api.calls import Calls
from pyswarm_manager.api.forward import LeaderForwarder
from pyswarm_manager.ca import rotation, tokens
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.writes import StorePort, Writer, cluster_of


class SecurityServicer(security_pb2_grpc.SecurityServicer):
    """Serves Security."""

    def __init__(
        self, store: StorePort, raft: RaftPort, forwarder: LeaderForwarder, ids: IdSource, clock: Clock
    ) -> None:
        self._raft = raft
        self._calls = Calls("Security", store, raft, forwarder)
        self._writer = Writer(store, raft, ids, clock)

    async def CreateJoinToken(self, request: pb.CreateJoinTokenRequest, context: Context) -> pb.CreateJoinTokenResponse:
        async def local() -> pb.CreateJoinTokenResponse:
            return await tokens.create(self._writer, cluster_of(self._writer), request)

        return await self._calls.on_leader(context, "CreateJoinToken", request, pb.CreateJoinTokenResponse, local)

    async def ListJoinTokens(self, request: pb.ListJoinTokensRequest, context: Context) -> pb.ListJoinTokensResponse:
        async def local() -> pb.ListJoinTokensResponse:
            await self._raft.read_barrier()
            return tokens.listed(self._writer.store.view)

        response = pb.ListJoinTokensResponse
        return await self._calls.on_leader(context, "ListJoinTokens", request, response, local, is_read=True)

    async def RemoveJoinToken(self, request: pb.RemoveJoinTokenRequest, context: Context) -> pb.RemoveJoinTokenResponse:
        async def local() -> pb.RemoveJoinTokenResponse:
            return await tokens.remove(self._writer, request.id)

        return await self._calls.on_leader(context, "RemoveJoinToken", request, pb.RemoveJoinTokenResponse, local)

    async def RotateRoot(self, request: pb.RotateRootRequest, context: Context) -> pb.RotateRootResponse:
        async def local() -> pb.RotateRootResponse:
            cluster_of(self._writer)
            await rotation.begin(self._writer, request)
            return pb.RotateRootResponse(root=self._root())

        return await self._calls.on_leader(context, "RotateRoot", request, pb.RotateRootResponse, local)

    async def GetRoot(self, request: pb.GetRootRequest, context: Context) -> pb.GetRootResponse:
        async def local() -> pb.GetRootResponse:
            await self._raft.read_barrier()
            return pb.GetRootResponse(root=self._root())

        return await self._calls.on_leader(context, "GetRoot", request, pb.GetRootResponse, local, is_read=True)

    async def GetUnlockKey(self, request: pb.GetUnlockKeyRequest, context: Context) -> pb.GetUnlockKeyResponse:
        async def local() -> pb.GetUnlockKeyResponse:
            await self._raft.read_barrier()
            return unlocking.shown(cluster_of(self._writer))

        try:
            return await self._calls.on_leader(
                context, "GetUnlockKey", request, pb.GetUnlockKeyResponse, local, is_read=True
            )
        except (Unavailable, grpc.aio.AioRpcError) as error:
            is_lost = isinstance(error, Unavailable) or error.code() is grpc.StatusCode.UNAVAILABLE
            if forwarded_by(context) or not is_lost:
                raise
            known = unlocking.shown(cluster_of(self._writer))
            known.is_last_known = True  # without the majority's word; what the others are locked with, it is likely
            return known

    async def RotateUnlockKey(self, request: pb.RotateUnlockKeyRequest, context: Context) -> pb.RotateUnlockKeyResponse:
        async def local() -> pb.RotateUnlockKeyResponse:
            return await unlocking.rotate_unlock_key(self._writer)

        return await self._calls.on_leader(context, "RotateUnlockKey", request, pb.RotateUnlockKeyResponse, local)

    async def RotateEncryptionKey(
        self, request: pb.RotateEncryptionKeyRequest, context: Context
    ) -> pb.RotateEncryptionKeyResponse:
        async def local() -> pb.RotateEncryptionKeyResponse:
            return await unlocking.rotate_encryption_key(self._writer)

        return await self._calls.on_leader(
            context, "RotateEncryptionKey", request, pb.RotateEncryptionKeyResponse, local
        )

    def _root(self) -> pb.RootStatus:
        return rotation.status(self._writer.store.view, cluster_of(self._writer))
