"""Specs: what a user says should be. Same fields as the messages of the same name in proto/pyswarm/v1/types.proto.

Frozen and compared by value, so that "did this change what a task sees?" is `==`; shared by every task of a service.
The meaning of each field is written once, in the .proto file.
"""

from __future__ import annotations

import msgspec

from pyswarm_common.model.states import (
    Availability,
    EndpointMode,
    FailureAction,
    MountType,
    NodeRole,
    Protocol,
    PublishMode,
    RestartCondition,
    ServiceMode,
    UpdateOrder,
)

DEFAULT_RESTART_DELAY_S = 5.0
DEFAULT_UPDATE_MONITOR_S = 5.0
DEFAULT_STOP_GRACE_PERIOD_S = 10.0


class Struct(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Base of every model value: immutable, encoded as a map without its defaults, so that fields can be added."""


class NodeSpec(Struct, frozen=True):
    labels: dict[str, str] = {}
    role: NodeRole = NodeRole.WORKER
    availability: Availability = Availability.ACTIVE


class Resources(Struct, frozen=True):
    nano_cpus: int = 0
    memory_bytes: int = 0


class Mount(Struct, frozen=True):
    type: MountType = MountType.BIND
    source: str = ""
    target: str = ""
    read_only: bool = False
    tmpfs_size_bytes: int = 0


class HealthCheck(Struct, frozen=True):
    test: tuple[str, ...] = ()
    interval_s: float = 0.0
    timeout_s: float = 0.0
    retries: int = 0
    start_period_s: float = 0.0


class ContainerSpec(Struct, frozen=True):
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    hostname: str = ""
    dir: str = ""
    user: str = ""
    labels: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    stop_signal: str = ""
    stop_grace_period_s: float | None = None
    healthcheck: HealthCheck | None = None
    dns: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    init: bool = False
    tty: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}


class ResourceRequirements(Struct, frozen=True):
    limits: Resources = Resources()
    reservations: Resources = Resources()
    pids_limit: int = 0


class RestartPolicy(Struct, frozen=True):
    condition: RestartCondition = RestartCondition.ANY
    delay_s: float | None = None
    max_attempts: int = 0
    window_s: float = 0.0


class PlacementPreference(Struct, frozen=True):
    spread_descriptor: str = ""


class Placement(Struct, frozen=True):
    constraints: tuple[str, ...] = ()
    preferences: tuple[PlacementPreference, ...] = ()
    max_replicas_per_node: int = 0


class NetworkAttachmentSpec(Struct, frozen=True):
    target: str = ""
    aliases: tuple[str, ...] = ()


class TaskSpec(Struct, frozen=True):
    container: ContainerSpec = ContainerSpec()
    resources: ResourceRequirements = ResourceRequirements()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    networks: tuple[NetworkAttachmentSpec, ...] = ()
    force_update: int = 0


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


class EndpointSpec(Struct, frozen=True):
    mode: EndpointMode = EndpointMode.VIP
    ports: tuple[PortConfig, ...] = ()


class ServiceSpec(Struct, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    mode: ServiceMode = ServiceMode.REPLICATED
    replicas: int | None = None
    task: TaskSpec = TaskSpec()
    update: UpdateConfig | None = None
    rollback: UpdateConfig | None = None
    endpoint: EndpointSpec = EndpointSpec()


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


class ClusterSpec(Struct, frozen=True):
    name: str = "default"
    task_history_limit: int = 5
    heartbeat_period_s: float = 1.0
    node_cert_expiry_s: float = 90 * 24 * 3600.0
    default_address_pools: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    data_path_port: int = 4789
    managers: int = 0
    dead_manager_grace_s: float = 0.0
    backup_interval_s: float = 12 * 3600.0
    backups_kept: int = 5
    autolock: bool = False

    @property
    def manager_grace_s(self) -> float:
        """After how long a silent manager is dead. 30 s: long enough for one to be restarted or for its network to be
        mended, and short against the time in which a second one is lost."""
        return self.dead_manager_grace_s or 30.0
