"""The plain values that cross the runtime's API: configurations in, states, images and log records out.

Nothing here does anything. All values are frozen, so that they can be shared between tasks and kept as they were; the
ones that are written to disk are `msgspec` structs, encoded as JSON maps, so that fields can be added later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

MIB = 1024 * 1024

ContainerStatus = Literal["created", "running", "paused", "exited", "dead"]
MountType = Literal["bind", "volume", "tmpfs"]
LogStream = Literal["stdout", "stderr"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what comes from outside. Whoever crosses one is refused with `Exhausted`."""

    archive_bytes: int = 64 * 1024 * MIB
    layer_bytes: int = 32 * 1024 * MIB
    layer_entries: int = 2_000_000
    metadata_bytes: int = 4 * MIB


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where one runtime lives. Two on a machine must differ in all of `root`, `run_dir` and `cgroup_parent`."""

    root: Path
    run_dir: Path
    oci_runtime: str | None = None  # a name or path; None lets the preflight choose crun, else runc
    cgroup_parent: str = "/pyswarm"
    namespace: str = "default"
    max_parallel_starts: int = 8
    limits: Limits = Limits()


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    """What the host offers and what was chosen; `str()` of it is one line for the log."""

    oci_runtime: str
    oci_runtime_path: str
    conmon_path: str
    cgroup_version: Literal[1, 2]
    cgroup_hybrid: bool
    storage_driver: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        cgroups = f"cgroup v{self.cgroup_version}" + (" (hybrid)" if self.cgroup_hybrid else "")
        return ", ".join((f"{self.oci_runtime} with conmon", cgroups, self.storage_driver, *self.notes))


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """`source` is a host path for a bind, a volume name for a volume, and empty for a tmpfs."""

    type: MountType
    target: str
    source: str = ""
    read_only: bool = False
    options: tuple[str, ...] = ()
    propagation: str = ""  # of a bind: rprivate unless it says otherwise
    non_recursive: bool = False  # a bind without what is mounted below its source
    no_copy: bool = False  # a new volume stays empty, whatever the image has at the target
    volume_driver: str = ""  # empty: local
    volume_options: dict[str, str] = {}  # of the local driver: type, device and o, as mount(8) has them
    volume_labels: dict[str, str] = {}
    subpath: str = ""  # of a volume: what is mounted instead of its root


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device node of the host, or a directory of them. `permissions` are any of r, w and m (mknod)."""

    host_path: str
    container_path: str = ""  # empty: as on the host
    permissions: str = "rwm"


class Ulimit(msgspec.Struct, frozen=True, kw_only=True):
    """`name` as docker has it: nofile, nproc, core, …; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one container shall be. `None` for entrypoint or command means: as the image says."""

    image: str
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    private_env_path: str = ""
    """A file of more variables, with zero bytes between them, read at each start: they are kept on no disk of ours."""
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    labels: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    netns_path: str | None = None  # None: a new network namespace with nothing but a loopback that is down
    host_network: bool = False
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name:address"
    nano_cpus: int = 0
    memory_bytes: int = 0
    memory_swap_bytes: int | None = None  # memory and swap together; None: twice the memory, -1: unlimited
    memory_swappiness: int | None = None  # 0 to 100; only control groups v1 have it for each group
    pids_limit: int = 0
    cpu_shares: int = 0
    stop_signal: str | None = None
    stop_grace_s: float = 10.0
    tty: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    sysctls: dict[str, str] = {}
    init: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    groups: tuple[str, ...] = ()  # supplementary ones, by the image's names or as numbers
    oom_score_adj: int = 0
    devices: tuple[Device, ...] = ()
    no_new_privileges: bool = False
    seccomp_profile: str = ""  # "unconfined", or a profile in docker's JSON; empty: the default one
    apparmor_profile: str = ""  # of those that the host has loaded, or "unconfined"
    shm_size_bytes: int = 0  # 0: 64 MiB
    host_pid: bool = False
    host_ipc: bool = False
    stdin_open: bool = False
    log_driver: str = ""  # empty: json-file
    log_max_size: int = 16 * MIB  # bytes of one log file
    log_max_files: int = 2  # the current one and the rotated ones


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """What one container is. Times are unix seconds; `pid` is 0 and `exit_code` None while there is none."""

    id: str
    config: ContainerConfig
    status: ContainerStatus
    image_digest: str  # of the image's configuration, which is docker's image id
    created_at: float
    pid: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None


class ExecResult(msgspec.Struct, frozen=True):
    """`output` is standard output and error as they came, cut at the caller's limit (then `truncated`)."""

    exit_code: int
    output: bytes
    truncated: bool = False
    timed_out: bool = False


class ExecOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a command is run beside a container's own process. Empty: as that is."""

    tty: bool = False
    stdin: bool = False
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False


class LogRecord(msgspec.Struct, frozen=True):
    """One line of output, its newline included (absent where the process ended without one, or the line is huge)."""

    timestamp: float
    stream: LogStream
    data: bytes


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True):
    """As the image declares it; durations in seconds, 0 means docker's default. The runtime does not act on it."""

    test: tuple[str, ...] = ()
    interval_s: float = 0.0
    timeout_s: float = 0.0
    start_period_s: float = 0.0
    start_interval_s: float = 0.0
    retries: int = 0


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How an image says it is run."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is the digest of the configuration, `digest` that of the manifest; `size` the sum of the stored layers."""

    id: str
    digest: str
    references: tuple[str, ...]
    size: int
    created_at: float
    architecture: str
    os: str
    config: ImageConfig
    diff_ids: tuple[str, ...] = ()


class Descriptor(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    size: int
    media_type: str


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a peer needs to fetch an image: these bytes, the configuration's blob and the layers' blobs."""

    reference: str
    config_digest: str
    config_size: int
    manifest_bytes: bytes
    layers: tuple[Descriptor, ...]


class RemovedItem(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of the two is set: a reference that was taken off, or an image that was deleted."""

    untagged: str | None = None
    deleted: str | None = None
