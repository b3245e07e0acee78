"""Who may call what on a manager: one table of every method of every service it serves.

The server's interceptor (`pyswarm_common.rpc.GuardInterceptor`) holds every call to it, and refuses what is missing. A
worker's certificate opens only what an agent needs: its session, and its own membership. That a certificate's node is
still part of the cluster is looked up where a call can change something (`api.caller`, `ca`).
"""

from __future__ import annotations

from typing import Final

from pyswarm_common.rpc import Caller, Table

_MANAGERS: Final = frozenset({Caller.MANAGER})
_LOCAL_AND_MANAGERS: Final = frozenset({Caller.LOCAL, Caller.MANAGER})
_NODES: Final = frozenset({Caller.WORKER, Caller.MANAGER})

_CONTROL = (
    "GetCluster UpdateCluster ListNodes GetNode UpdateNode RemoveNode ListServices GetService CreateService "
    "UpdateService RemoveService ListTasks GetTask ListNetworks GetNetwork CreateNetwork RemoveNetwork"
)

_GRANTS: Final[tuple[tuple[str, str, frozenset[Caller]], ...]] = (
    ("pyswarm.v1.Control", _CONTROL, _LOCAL_AND_MANAGERS),
    ("pyswarm.v1.Watch", "Watch", _LOCAL_AND_MANAGERS),
    ("pyswarm.v1.Logs", "ReadLogs", _LOCAL_AND_MANAGERS),
    ("pyswarm.v1.Health", "GetHealth", _LOCAL_AND_MANAGERS),
    ("pyswarm.v1.Dispatcher", "Session LocateImage", _NODES),
    # The root certificate is no secret; everything else in CA acts for the caller's own node.
    ("pyswarm.v1.CA", "GetRootCertificate", _NODES | {Caller.LOCAL}),
    ("pyswarm.v1.CA", "RenewCertificate Leave", _NODES),
    # Machines without a certificate come by HTTPS; by gRPC only a follower that forwards their request.
    ("pyswarm.v1.CA", "IssueCertificate JoinRaft", _MANAGERS),
    ("pyswarm.v1.Raft", "Exchange InstallSnapshot", _MANAGERS),
    ("grpc.health.v1.Health", "Check Watch List", _LOCAL_AND_MANAGERS),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", _LOCAL_AND_MANAGERS),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", _LOCAL_AND_MANAGERS),
)

TABLE: Final[Table] = {
    f"/{service}/{method}": callers for service, methods, callers in _GRANTS for method in methods.split()
}
