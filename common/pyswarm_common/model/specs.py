"""Specs: what a user says should be. Same fields as the messages of the same name in proto/pyswarm/v1/types.proto.

Frozen and compared by value, so that "did this change what a task sees?" is `==`; shared by every task of a service.
The meaning of each field is written once, in the .proto file.
"""

from __future__ import annotations

from pyswarm_common.model.base import Struct
from pyswarm_common.model.container import ContainerSpec
from pyswarm_common.model.states import (
    Availability,
    DependencyCondition,
    EndpointMode,
    FailureAction,
    IngressPolicy,
    NodeRole,
    OverlapPolicy,
    PlacementStrategy,
    Protocol,
    PublishMode,
    RestartCondition,
    ServiceMode,
    SessionAffinity,
    TaintEffect,
    UpdateOrder,
)
from pyswarm_common.secrecy import shown_without

DEFAULT_RESTART_DELAY_S = 5.0
DEFAULT_UPDATE_MONITOR_S = 5.0
DEFAULT_STOP_GRACE_PERIOD_S = 10.0


class Taint(Struct, frozen=True):
    key: str = ""
    value: str = ""
    effect: TaintEffect = TaintEffect.NO_SCHEDULE


class NodeSpec(Struct, frozen=True):
    labels: dict[str, str] = {}
    role: NodeRole = NodeRole.WORKER
    availability: Availability = Availability.ACTIVE
    taints: tuple[Taint, ...] = ()
    drain_deadline_s: float = 0.0


class GenericResource(Struct, frozen=True):
    kind: str = ""
    count: int = 0
    value: str = ""


class Platform(Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class Resources(Struct, frozen=True):
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0
    generic: tuple[GenericResource, ...] = ()


class ResourceRequirements(Struct, frozen=True):
    limits: Resources = Resources()
    reservations: Resources = Resources()
    memory_swap_bytes: int | None = None
    memory_swappiness: int | None = None


class RestartPolicy(Struct, frozen=True):
    condition: RestartCondition = RestartCondition.ANY
    delay_s: float | None = None
    max_attempts: int = 0
    window_s: float = 0.0
    max_delay_s: float = 0.0


class PlacementPreference(Struct, frozen=True):
    spread_descriptor: str = ""


class Toleration(Struct, frozen=True):
    key: str = ""
    value: str | None = None
    effects: tuple[TaintEffect, ...] = ()


class Affinity(Struct, frozen=True):
    service: str = ""
    anti: bool = False
    topology: str = ""
    weight: int = 0


class Placement(Struct, frozen=True):
    constraints: tuple[str, ...] = ()
    preferences: tuple[PlacementPreference, ...] = ()
    max_replicas_per_node: int = 0
    tolerations: tuple[Toleration, ...] = ()
    affinities: tuple[Affinity, ...] = ()
    strategy: PlacementStrategy = PlacementStrategy.DEFAULT
    platforms: tuple[Platform, ...] = ()


class NetworkAttachmentSpec(Struct, frozen=True):
    target: str = ""
    aliases: tuple[str, ...] = ()
    driver_options: dict[str, str] = {}
    virtual_addresses: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class PlainAttachment(Struct, frozen=True):
    """A plain container on networks of the cluster."""

    container_id: str = ""
    container_name: str = ""


class TaskSpec(Struct, frozen=True):
    container: ContainerSpec = ContainerSpec()
    resources: ResourceRequirements = ResourceRequirements()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    networks: tuple[NetworkAttachmentSpec, ...] = ()
    force_update: int = 0
    attachment: PlainAttachment | None = None


class UpdateConfig(Struct, frozen=True):
    parallelism: int = 0
    delay_s: float = 0.0
    failure_action: FailureAction = FailureAction.PAUSE
    monitor_s: float | None = None
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST


class PortConfig(Struct, frozen=True):
    name: str = ""
    protocol: Protocol = Protocol.TCP
    target_port: int = 0
    published_port: int = 0
    publish_mode: PublishMode = PublishMode.INGRESS
    host_ip: str = ""
    policy: IngressPolicy = IngressPolicy.SPREAD
    proxy_protocol: bool = False


class EndpointSpec(Struct, frozen=True):
    mode: EndpointMode = EndpointMode.VIP
    ports: tuple[PortConfig, ...] = ()
    session_affinity: SessionAffinity = SessionAffinity.NONE
    allow_from: tuple[str, ...] = ()


class JobSpec(Struct, frozen=True):
    max_concurrent: int | None = None
    total_completions: int | None = None


class CronSpec(Struct, frozen=True):
    schedule: str = ""
    time_zone: str = ""
    overlap: OverlapPolicy = OverlapPolicy.FORBID
    starting_deadline_s: float = 0.0
    history_limit: int = 0


class AutoscaleSpec(Struct, frozen=True):
    min_replicas: int = 0
    max_replicas: int = 0
    cpu_percent: int = 0
    memory_percent: int = 0
    scale_down_window_s: float | None = None
    scale_up_window_s: float | None = None


class ServiceDependency(Struct, frozen=True):
    service: str = ""
    condition: DependencyCondition = DependencyCondition.STARTED


class ServiceSpec(Struct, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    mode: ServiceMode = ServiceMode.REPLICATED
    replicas: int | None = None
    task: TaskSpec = TaskSpec()
    update: UpdateConfig | None = None
    rollback: UpdateConfig | None = None
    endpoint: EndpointSpec = EndpointSpec()
    job: JobSpec | None = None
    cron: CronSpec | None = None
    autoscale: AutoscaleSpec | None = None
    depends_on: tuple[ServiceDependency, ...] = ()
    stopped: bool = False
    priority: int = 0
    rebalance: bool = False


class FileSpec(Struct, frozen=True):
    """Of a secret or a config."""

    name: str = ""
    labels: dict[str, str] = {}
    templating: str = ""
    data: bytes = b""

    def __repr__(self) -> str:
        return shown_without(self, "data")


class NetworkSpec(Struct, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    driver: str = ""
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    options: dict[str, str] = {}
    ipv6: bool = False
    ip_ranges: tuple[str, ...] = ()
    auxiliary_addresses: dict[str, str] = {}
    ipam_driver: str = ""
    ipam_options: dict[str, str] = {}
    config_only: bool = False
    config_from: str = ""


class ClusterSpec(Struct, frozen=True):
    name: str = "default"
    task_history_limit: int = 5
    heartbeat_period_s: float = 1.0
    node_cert_expiry_s: float = 90 * 24 * 3600.0
    default_address_pools: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    data_path_port: int = 4789
    tunnel_key_rotation_s: float = 0.0
    managers: int = 0
    dead_manager_grace_s: float = 0.0
    backup_interval_s: float = 12 * 3600.0
    backups_kept: int = 5
    autolock: bool = False
    orphan_after_s: float = 0.0
    revision_limit: int = 0
    placement_strategy: PlacementStrategy = PlacementStrategy.DEFAULT

    @property
    def tunnel_rotation_s(self) -> float:
        """How old a tunnel key may become."""
        return self.tunnel_key_rotation_s or 12 * 3600.0

    @property
    def manager_grace_s(self) -> float:
        """After how long a silent manager is dead. 30 s: long enough for one to be restarted or for its network to be
        mended, and short against the time in which a second one is lost."""
        return self.dead_manager_grace_s or 30.0

    @property
    def orphan_grace_s(self) -> float:
        """After how long the tasks of a node that is down are given up."""
        return self.orphan_after_s or 24 * 3600.0
