"""Who may call what on a manager: one table of every method of every service it serves.

The server's interceptor (`pyswarm_common.rpc.GuardInterceptor`) holds every call to it, and refuses what is missing. A
worker's certificate opens only what an agent needs: its session, and its own membership. People have roles: a viewer
reads what is no secret, an operator also changes services, networks and nodes, an admin does everything; whoever uses
the local socket is an admin. What a role decides inside a method (a viewer's cluster has no tokens, an operator changes
no node's role) is decided in that method. That a certificate's node is still part of the cluster, and that a person's
token or certificate still holds, is looked up in the store (`api.caller`, `access.admission`, `ca`).

A new method: one line, among the reads or among the changes. What is among the changes leaves an audit record.
"""

from __future__ import annotations

from typing import Final

from pyswarm_common.rpc import Caller, Table

_MANAGERS: Final = frozenset({Caller.MANAGER})
_LOCAL_AND_MANAGERS: Final = frozenset({Caller.LOCAL, Caller.MANAGER})
_NODES: Final = frozenset({Caller.WORKER, Caller.MANAGER})
_ADMINS: Final = _LOCAL_AND_MANAGERS | {Caller.ADMIN}
_OPERATORS: Final = _ADMINS | {Caller.OPERATOR}
_VIEWERS: Final = _OPERATORS | {Caller.VIEWER}

_Grants = tuple[tuple[str, str, frozenset[Caller]], ...]

_GRANTS: Final[_Grants] = (
    (
        "pyswarm.v1.Control",
        "GetCluster ListNodes GetNode ListServices GetService ListTasks GetTask ListNetworks GetNetwork",
        _VIEWERS,
    ),
    ("pyswarm.v1.Control", "ListServiceRevisions", _VIEWERS),
    ("pyswarm.v1.Scheduling", "ExplainTask ExplainService PlanRebalance", _VIEWERS),
    ("pyswarm.v1.Plans", "PlanChange SimulateLoss", _VIEWERS),
    ("pyswarm.v1.Watch", "Watch", _VIEWERS),
    ("pyswarm.v1.Logs", "ReadLogs", _VIEWERS),
    ("pyswarm.v1.Health", "GetHealth", _VIEWERS),
    # No answer holds a secret's data.
    ("pyswarm.v1.Secrets", "GetSecret ListSecrets GetConfig ListConfigs", _VIEWERS),
    # Who enters a container can change it, and can read the secrets in it.
    ("pyswarm.v1.Exec", "Run CopyFrom CopyTo", _OPERATORS),
    # Repairs bring the kernel to what the cluster says already; a look changes nothing.
    ("pyswarm.v1.NetworkChecks", "VerifyNetworks TraceNetwork", _OPERATORS),
    ("pyswarm.v1.NetworkChecks", "GetTableVersions", _VIEWERS),
    ("pyswarm.v1.Access", "ListAuditRecords WatchAuditRecords", _VIEWERS),
    ("pyswarm.v1.Access", "ListTokens ListClientCertificates", _ADMINS),
    # A backup holds everything, the root's key included.
    ("pyswarm.v1.Backup", "CreateBackup ListBackups", _ADMINS),
    ("pyswarm.v1.Security", "GetRoot", _VIEWERS),
    ("pyswarm.v1.Security", "ListJoinTokens", _ADMINS),
    ("pyswarm.v1.Security", "GetUnlockKey", _ADMINS),
    # Which key this machine's files are locked with is between its daemon and its manager.
    ("pyswarm.v1.Locking", "FollowUnlockKey SealKeyring", frozenset({Caller.LOCAL})),
    ("pyswarm.v1.Dispatcher", "Session LocateImage", _NODES),
    # For containers of the caller's own node, which asks again by itself whenever it has to.
    ("pyswarm.v1.Attachments", "Attach", _NODES),
    # The root certificate is no secret; everything else in CA acts for the caller's own node.
    ("pyswarm.v1.CA", "GetRootCertificate", _VIEWERS | _NODES),
    ("pyswarm.v1.Raft", "Exchange InstallSnapshot Announce", _MANAGERS),
    ("pyswarm.v1.Operator", "ListPeers GetRaftState InspectStore", _VIEWERS),
    ("pyswarm.v1.Operator", "CheckReplicas", _ADMINS),
    ("pyswarm.v1.Operator", "GetDigest", _LOCAL_AND_MANAGERS),
    ("grpc.health.v1.Health", "Check Watch List", _VIEWERS),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", _VIEWERS),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", _VIEWERS),
)

_CHANGE_GRANTS: Final[_Grants] = (
    ("pyswarm.v1.Control", "CreateService UpdateService RemoveService CreateNetwork RemoveNetwork", _OPERATORS),
    ("pyswarm.v1.Control", "RestartTask RemoveTask", _OPERATORS),
    ("pyswarm.v1.Jobs", "RunService", _OPERATORS),
    ("pyswarm.v1.Scheduling", "Rebalance", _OPERATORS),
    # What may be in a plan is open to operators each by itself.
    ("pyswarm.v1.Plans", "ApplyPlan", _OPERATORS),
    ("pyswarm.v1.Control", "UpdateNode", _OPERATORS),
    ("pyswarm.v1.Secrets", "CreateSecret UpdateSecret RotateSecret RemoveSecret", _OPERATORS),
    ("pyswarm.v1.Secrets", "CreateConfig UpdateConfig RotateConfig RemoveConfig", _OPERATORS),
    # Of those that enter containers only the announcement is recorded, by the leader, before they begin.
    ("pyswarm.v1.Exec", "Announce", _OPERATORS),
    ("pyswarm.v1.Control", "UpdateCluster RemoveNode", _ADMINS),
    # A token's own holder, whatever its role; the method refuses everybody who came without one.
    ("pyswarm.v1.Access", "ExchangeToken", _VIEWERS),
    ("pyswarm.v1.Access", "CreateToken RemoveToken CreateClientCertificate RemoveClientCertificate", _ADMINS),
    ("pyswarm.v1.Backup", "GetBackupKey", _ADMINS),
    ("pyswarm.v1.Security", "CreateJoinToken RemoveJoinToken RotateRoot", _ADMINS),
    ("pyswarm.v1.Security", "RotateUnlockKey RotateEncryptionKey", _ADMINS),
    ("pyswarm.v1.Operator", "TransferLeadership", _ADMINS),
    ("pyswarm.v1.CA", "RenewCertificate Leave", _NODES),
    # Machines without a certificate come by HTTPS; by gRPC only a follower that forwards their request.
    ("pyswarm.v1.CA", "IssueCertificate RenewExpired JoinRaft", _MANAGERS),
)


def _methods(grants: _Grants) -> dict[str, frozenset[Caller]]:
    return {f"/{service}/{method}": callers for service, methods, callers in grants for method in methods.split()}


TABLE: Final[Table] = {**_methods(_GRANTS), **_methods(_CHANGE_GRANTS)}
CHANGES: Final = frozenset(_methods(_CHANGE_GRANTS))
"""The methods whose changes are recorded in the audit log."""
