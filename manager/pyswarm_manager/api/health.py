"""How this manager is. Answers at once, also without a leader and before the first entry is applied."""

# ruff: noqa: N802  -- the names of the methods are those of the .proto file
from __future__ import annotations

from importlib import metadata
from typing import Final

from pyswarm.v1 import health_pb2, health_pb2_grpc
from pyswarm_manager.api.caller import Context
from pyswarm_manager.ports import IdentityProvider, RaftPort
from pyswarm_manager.writes import StorePort


def _version() -> str:
    try:
        return metadata.version("pyswarm-cluster")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "dev"


VERSION: Final = _version()


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Serves Health. `cluster_id` is empty until the cluster object is applied here."""

    def __init__(self, raft: RaftPort, store: StorePort, identity: IdentityProvider) -> None:
        self._raft, self._store, self._identity = raft, store, identity

    async def GetHealth(self, request: health_pb2.GetHealthRequest, context: Context) -> health_pb2.GetHealthResponse:
        raft, cluster = self._raft, self._store.view.cluster
        response = health_pb2.GetHealthResponse(
            node_id=self._identity().node_id,
            cluster_id=cluster.id if cluster is not None else "",
            raft_id=raft.raft_id,
            term=raft.term,
            leader_raft_id=raft.leader_id or 0,
            applied_index=raft.applied_index,
            commit_index=raft.commit_index,
            version=VERSION,
            disk_problem=raft.disk_problem,
        )
        for raft_id, member in raft.members.items():
            response.members.add(
                raft_id=raft_id,
                address=member.address,
                leader=member.is_leader,
                reachable=member.is_active or not raft.is_leader,
                match_index=member.match_index if raft.is_leader else 0,
                disk_is_full=member.disk_is_full,
            )
        return response
