"""What a container is: the part of a service's specification that plain containers share.

Same fields as the messages of the same name in proto/pyswarm/v1/types.proto, where their meaning is written once.
Nothing here knows of services, nodes or placement.
"""

from __future__ import annotations

from pyswarm_common.model.base import Struct
from pyswarm_common.model.states import MountType
from pyswarm_common.secrecy import shown_without


class Mount(Struct, frozen=True):
    type: MountType = MountType.BIND
    source: str = ""
    target: str = ""
    read_only: bool = False
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int = 0
    bind_propagation: str = ""
    bind_non_recursive: bool = False
    volume_no_copy: bool = False
    volume_labels: dict[str, str] = {}
    volume_driver: str = ""
    volume_options: dict[str, str] = {}
    volume_subpath: str = ""


class HealthCheck(Struct, frozen=True):
    test: tuple[str, ...] = ()
    interval_s: float = 0.0
    timeout_s: float = 0.0
    retries: int = 0
    start_period_s: float = 0.0
    start_interval_s: float = 0.0


class Ulimit(Struct, frozen=True):
    name: str = ""
    soft: int = 0
    hard: int = 0


class LogDriver(Struct, frozen=True):
    name: str = ""
    options: dict[str, str] = {}


class DeviceMapping(Struct, frozen=True):
    host_path: str = ""
    container_path: str = ""
    permissions: str = ""


class FileReference(Struct, frozen=True):
    """A secret or config in a container."""

    id: str = ""
    name: str = ""
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: int = 0
    env: str = ""
    pinned: bool = False


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
    groups: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    log_driver: LogDriver | None = None
    isolation: str = ""
    privileged: bool = False
    devices: tuple[DeviceMapping, ...] = ()
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    apparmor_profile: str = ""
    shm_size_bytes: int = 0
    pid_mode: str = ""
    ipc_mode: str = ""
    stdin_open: bool = False
    secrets: tuple[FileReference, ...] = ()
    configs: tuple[FileReference, ...] = ()
    registry_auth: bytes = b""

    def __repr__(self) -> str:
        return shown_without(self, "registry_auth")
