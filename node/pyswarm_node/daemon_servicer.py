"""The daemon's own API on the local socket: the machine's membership, and how it is."""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

from pyswarm.v1 import node_pb2, node_pb2_grpc
from pyswarm_common.identity.locks import LOCKED
from pyswarm_runtime import Runtime

from .describe import capabilities, version
from .membership import Membership
from .recovery import Recovery


class DaemonServicer(node_pb2_grpc.DaemonServicer):
    """Serves Daemon."""

    def __init__(self, membership: Membership, recovery: Recovery, runtime: Runtime) -> None:
        self._membership, self._recovery = membership, recovery
        self._runtime = runtime

    async def GetInfo(self, request: node_pb2.GetInfoRequest, context: Any) -> node_pb2.GetInfoResponse:
        standing = self._membership.standing
        response = node_pb2.GetInfoResponse(
            version=version(),
            hostname=socket.gethostname(),
            capabilities=capabilities(self._runtime.preflight),
            containers_running=sum(state.status == "running" for state in await self._runtime.list()),
            manager_running=standing.manager.is_running,
        )
        record, member, identity = standing.record, standing.member, standing.identity
        if record is None or member is None or identity is None:
            return response
        agent = member.agent
        response.state = node_pb2.GetInfoResponse.STATE_ACTIVE
        if standing.lock.is_locked:
            response.state = node_pb2.GetInfoResponse.STATE_LOCKED
        elif agent.is_removed:
            response.state = node_pb2.GetInfoResponse.STATE_ERROR
        elif not agent.has_had_session:
            response.state = node_pb2.GetInfoResponse.STATE_PENDING
        response.node_id, response.cluster_id = record.node_id, record.cluster_id
        response.role = int(identity.certified.role)  # type: ignore[assignment]
        response.address = record.address
        response.manager_addresses.extend(agent.managers)
        response.error = "" if agent.is_connected else agent.error
        if standing.lock.is_locked:
            response.error = LOCKED
        return response

    async def Init(self, request: node_pb2.InitRequest, context: Any) -> node_pb2.InitResponse:
        return await self._membership.joining.init(request)

    async def Join(self, request: node_pb2.JoinRequest, context: Any) -> node_pb2.JoinResponse:
        return await self._membership.joining.join(request)

    async def Restore(
        self, request_iterator: AsyncIterator[node_pb2.RestoreRequest], context: Any
    ) -> node_pb2.RestoreResponse:
        return await self._recovery.restore(request_iterator)

    async def PlanForceNewCluster(
        self, request: node_pb2.ForceNewClusterRequest, context: Any
    ) -> node_pb2.ForceNewClusterPlan:
        return await self._recovery.plan_force_new_cluster(request)

    async def ForceNewCluster(
        self, request: node_pb2.ForceNewClusterRequest, context: Any
    ) -> node_pb2.ForceNewClusterPlan:
        return await self._recovery.force_new_cluster(request)

    async def Unlock(self, request: node_pb2.UnlockRequest, context: Any) -> node_pb2.UnlockResponse:
        await self._membership.unlock(request.unlock_key)
        return node_pb2.UnlockResponse()

    async def Leave(self, request: node_pb2.LeaveClusterRequest, context: Any) -> node_pb2.LeaveClusterResponse:
        await self._membership.leave(force=request.force)
        return node_pb2.LeaveClusterResponse()
