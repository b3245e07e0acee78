"""Objects: what the cluster keeps. Same fields as the messages of the same name in proto/pyswarm/v1/types.proto.

Times are unix seconds (float). Objects are immutable: a change is `msgspec.structs.replace` in a change set.
"""

from __future__ import annotations

from pyswarm_common.model.base import Struct
from pyswarm_common.model.specs import (
    ClusterSpec,
    FileSpec,
    GenericResource,
    NetworkSpec,
    NodeSpec,
    PortConfig,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from pyswarm_common.model.states import (
    CredentialKind,
    CronRunState,
    HealthState,
    NodeRole,
    NodeState,
    PersonRole,
    RebalanceState,
    TaskState,
    UpdateState,
)
from pyswarm_common.secrecy import shown_without


class Meta(Struct, frozen=True):
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


class Plugin(Struct, frozen=True):
    type: str = ""
    name: str = ""


class TunnelKey(Struct, frozen=True):
    """A node's end of the encrypted tunnels; the private half never leaves the node."""

    public_key: bytes = b""
    port: int = 0
    number: int = 0


class NodeDescription(Struct, frozen=True):
    hostname: str = ""
    os: str = ""
    architecture: str = ""
    resources: Resources = Resources()
    engine_version: str = ""
    engine_labels: dict[str, str] = {}
    data_path_address: str = ""
    agent_address: str = ""
    capabilities: dict[str, str] = {}
    plugins: tuple[Plugin, ...] = ()
    devices: tuple[str, ...] = ()
    routed_subnets: tuple[str, ...] = ()
    tunnel_keys: tuple[TunnelKey, ...] = ()
    network_repairs: int = 0
    network_repair: str = ""


class NodeStatus(Struct, frozen=True):
    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    address: str = ""
    changed_at: float = 0.0


class ManagerStatus(Struct, frozen=True):
    raft_id: int = 0
    address: str = ""
    leader: bool = False
    reachable: bool = False
    learner: bool = False


class CertificateStatus(Struct, frozen=True):
    issuer: str = ""
    expires_at: float = 0.0
    renew_from: str = ""
    is_void: bool = False


class Node(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    manager_status: ManagerStatus | None = None
    role: NodeRole = NodeRole.WORKER
    ingress_addresses: tuple[str, ...] = ()
    key_digests: tuple[str, ...] = ()
    demotion_forced: bool = False
    certificate: CertificateStatus = CertificateStatus()
    drain_started_at: float = 0.0


class VirtualIP(Struct, frozen=True):
    network_id: str = ""
    address: str = ""


class Endpoint(Struct, frozen=True):
    vips: tuple[VirtualIP, ...] = ()
    ports: tuple[PortConfig, ...] = ()


class UpdateStatus(Struct, frozen=True):
    state: UpdateState = UpdateState.NONE
    started_at: float = 0.0
    completed_at: float = 0.0
    message: str = ""


class JobStatus(Struct, frozen=True):
    iteration: int = 0
    started_at: float = 0.0
    completed_at: float = 0.0
    succeeded: int = 0
    failed: int = 0
    settled: int = 0
    settled_failed: int = 0

    @property
    def has_succeeded(self) -> bool:
        """Whether the run is over, and nothing of it was given up."""
        return bool(self.completed_at) and not self.failed


class CronRun(Struct, frozen=True):
    tick_at: float = 0.0
    started_at: float = 0.0
    completed_at: float = 0.0
    iteration: int = 0
    state: CronRunState = CronRunState.RUNNING
    message: str = ""
    succeeded: int = 0
    failed: int = 0


class CronStatus(Struct, frozen=True):
    last_tick_at: float = 0.0
    runs: tuple[CronRun, ...] = ()
    schedule: str = ""


class AutoscaleDecision(Struct, frozen=True):
    decided_at: float = 0.0
    from_replicas: int = 0
    to_replicas: int = 0
    reason: str = ""


class AutoscaleStatus(Struct, frozen=True):
    replicas: int = 0
    decisions: tuple[AutoscaleDecision, ...] = ()


class RebalanceStatus(Struct, frozen=True):
    state: RebalanceState = RebalanceState.NONE
    started_at: float = 0.0
    completed_at: float = 0.0
    moves: int = 0
    message: str = ""


class Service(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()
    previous_spec: ServiceSpec | None = None
    spec_version: int = 0
    endpoint: Endpoint = Endpoint()
    update_status: UpdateStatus | None = None
    job_status: JobStatus | None = None
    cron_status: CronStatus | None = None
    autoscale_status: AutoscaleStatus | None = None
    revision: int = 0
    awaits_dependencies: bool = False
    rebalance_status: RebalanceStatus | None = None


class ServiceRevision(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    service_id: str = ""
    number: int = 0
    spec: ServiceSpec = ServiceSpec()
    author: str = ""


class ContainerStatus(Struct, frozen=True):
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    health: HealthState = HealthState.NONE


class TaskStatus(Struct, frozen=True):
    timestamp: float = 0.0
    state: TaskState = TaskState.NEW
    message: str = ""
    err: str = ""
    container: ContainerStatus | None = None


class NetworkAttachment(Struct, frozen=True):
    network_id: str = ""
    addresses: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class Task(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    service_id: str = ""
    service_name: str = ""
    slot: int = 0
    node_id: str = ""
    spec: TaskSpec = TaskSpec()
    spec_version: int = 0
    desired_state: TaskState = TaskState.NEW
    status: TaskStatus = TaskStatus()
    networks: tuple[NetworkAttachment, ...] = ()
    ports: tuple[PortConfig, ...] = ()
    restart_times: tuple[float, ...] = ()
    start_at: float = 0.0
    labels: dict[str, str] = {}
    running_at: float = 0.0
    ended_at: float = 0.0
    job_iteration: int = 0
    generic_resources: tuple[GenericResource, ...] = ()
    restart_requested: int = 0
    failures_in_row: int = 0
    ran_from: float = 0.0
    replaces: str = ""
    cause: str = ""

    @property
    def name(self) -> str:
        """What docker calls it: `web.1`, or `web.<node id>` for a global service. A plain container has its own."""
        if self.spec.attachment is not None and not self.service_id:
            return self.spec.attachment.container_name or self.spec.attachment.container_id
        return f"{self.service_name}.{self.slot or self.node_id}"


class Network(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    spec: NetworkSpec = NetworkSpec()
    vni: int = 0
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()


class Secret(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    spec: FileSpec = FileSpec()
    number: int = 0
    superseded: bool = False


class Config(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    spec: FileSpec = FileSpec()
    number: int = 0
    superseded: bool = False


class JoinTokens(Struct, frozen=True):
    worker: str = ""
    manager: str = ""

    def __repr__(self) -> str:
        return shown_without(self, "worker", "manager")


class RootRotation(Struct, frozen=True):
    root_ca_cert: bytes = b""
    root_ca_key: bytes = b""
    root_ca_chain: bytes = b""
    cross_signed_cert: bytes = b""
    started_at: float = 0.0

    def __repr__(self) -> str:
        return shown_without(self, "root_ca_key")


class Cluster(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    spec: ClusterSpec = ClusterSpec()
    root_ca_cert: bytes = b""
    root_ca_key: bytes = b""
    join_tokens: JoinTokens = JoinTokens()
    backup_key: bytes = b""
    root_ca_chain: bytes = b""
    root_rotation: RootRotation | None = None
    unlock_key: bytes = b""
    """Locks the managers' keys on their disks; empty without autolock."""
    encryption_epoch: int = 0

    def __repr__(self) -> str:
        return shown_without(self, "root_ca_key", "backup_key", "unlock_key")


class LimitedJoinToken(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    role: NodeRole = NodeRole.WORKER
    label: str = ""
    secret_hash: bytes = b""
    root_digest: str = ""
    expires_at: float = 0.0
    uses_total: int = 0
    uses_left: int = 0


class RemovedNode(Struct, frozen=True):
    id: str
    meta: Meta = Meta()
    expires_at: float = 0.0


class Credential(Struct, frozen=True):
    """What a person proves a role with. Inside the managers only: on the wire there is `access.proto`'s Credential."""

    id: str
    meta: Meta = Meta()
    kind: CredentialKind = CredentialKind.TOKEN
    name: str = ""
    role: PersonRole = PersonRole.VIEWER
    digest: bytes = b""
    """SHA-256: of the token, or of the certificate's public key."""
    expires_at: float = 0.0
    """Zero: never."""
    created_by: str = ""


AnyObject = (
    Cluster
    | Node
    | Service
    | ServiceRevision
    | Task
    | Network
    | Secret
    | Config
    | Credential
    | LimitedJoinToken
    | RemovedNode
)
