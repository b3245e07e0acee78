"""From a container's configuration and its image's to the OCI `config.json`. Pure: the same input, the same bytes.

Decides the process, its rights, mounts, namespaces and limits. It never looks at the host: whatever depends on it comes
in as `HostFacts` and `BundlePaths`. The result goes to conmon, which hands it to the OCI runtime.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.oci import defaults
from pyswarm_runtime.oci.seccomp import encoded_profile
from pyswarm_runtime.types import MIB, ContainerConfig, ImageConfig, Mount
from pyswarm_runtime.users import ProcessUser

CPU_PERIOD_US = 100_000
OCI_VERSION = "1.0.2"
SECCOMP_ANNOTATION = "run.oci.seccomp_bpf_data"  # of crun; others pay it no heed
MIN_MEMORY_BYTES = 6 * MIB


@dataclass(frozen=True, slots=True)
class BundlePaths:
    """Where this container's things lie on the host."""

    rootfs: str
    hosts: str
    hostname: str
    resolv_conf: str
    init: str | None = None  # of docker-init, tini or catatonit


@dataclass(frozen=True, slots=True)
class HostFacts:
    architecture: str  # as uname has it
    cgroup_version: int
    seccomp_filter: str | None = None  # compiled for these capabilities, in base64; None: the OCI runtime compiles it
    devices: tuple[tuple[str, str, int, int], ...] = ()  # path, type, major, minor; only for privileged containers
    capabilities: frozenset[str] = frozenset(defaults.ALL_CAPABILITIES)  # what this process may hand on


def validate(config: ContainerConfig, image: ImageConfig) -> None:
    """Refuses what no host could run: asked when a container is created, so that the mistake shows at once."""
    process_args(config, image)
    capabilities(config, frozenset(defaults.ALL_CAPABILITIES))
    _absolute("working directory", config.working_dir or image.working_dir or "/")
    for mount in config.mounts:
        # A volume's name becomes a path only when the container starts.
        _user_mount(msgspec.structs.replace(mount, source="/") if mount.type == "volume" else mount)
    if config.host_network and config.netns_path is not None:
        raise InvalidArgument("a container has either the host's network or a namespace of its own, not both")
    amounts = (config.nano_cpus, config.memory_bytes, config.cpu_shares, config.log_max_size)
    if min(amounts) < 0 or config.log_max_files < 1:
        raise InvalidArgument("limits cannot be negative, and at least one log file must be kept")
    if 0 < config.memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")


def process_args(config: ContainerConfig, image: ImageConfig) -> tuple[str, ...]:
    """Docker's rules: an entrypoint of one's own drops the image's command, a command of one's own replaces it."""
    entrypoint = image.entrypoint if config.entrypoint is None else config.entrypoint
    inherited = image.cmd if config.entrypoint is None else ()
    args = (*entrypoint, *(inherited if config.command is None else config.command))
    if not args:
        raise InvalidArgument(f"No command specified: give one, since the image {config.image} has none of its own")
    return args


def process_env(config: ContainerConfig, image: ImageConfig, hostname: str, home: str) -> list[str]:
    """Later entries win; an entry without `=` takes that variable away."""
    merged = {"PATH": defaults.DEFAULT_PATH, "HOSTNAME": f"HOSTNAME={hostname}", "HOME": f"HOME={home}"}
    if config.tty:
        merged["TERM"] = "TERM=xterm"
    for entry in (*image.env, *config.env):
        name, equals, _ = entry.partition("=")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def capabilities(config: ContainerConfig, available: frozenset[str]) -> tuple[str, ...]:
    """The default set, less what is dropped, plus what is added; `ALL` (all that the host has) may be named in both."""
    if config.privileged:
        return tuple(sorted(available))
    dropped, added = (_capability_names(names) for names in (config.cap_drop, config.cap_add))
    base = set(available if "ALL" in added else defaults.DEFAULT_CAPABILITIES)
    kept = set() if "ALL" in dropped else base - dropped
    return tuple(sorted((kept | added) - {"ALL"} - (dropped - added)))


def _capability_names(names: Iterable[str]) -> set[str]:
    result = set()
    for name in names:
        upper = name.upper()
        full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if full != "ALL" and full not in defaults.ALL_CAPABILITIES:
            raise InvalidArgument(f"invalid capability '{name}': see capabilities(7) for the names")
        result.add(full)
    return result


def default_hostname(container_id: str, config: ContainerConfig) -> str:
    return config.hostname or container_id[:12]


def build_spec(
    container_id: str,
    config: ContainerConfig,
    image: ImageConfig,
    user: ProcessUser,
    paths: BundlePaths,
    facts: HostFacts,
    cgroups_path: str,
) -> dict[str, Any]:
    """The whole `config.json` as plain data (the seccomp part is already encoded)."""
    hostname = default_hostname(container_id, config)
    caps = capabilities(config, facts.capabilities)
    spec = {
        "ociVersion": OCI_VERSION,
        "process": _process(config, image, user, hostname, caps),
        "root": {"path": paths.rootfs, "readonly": config.read_only},
        "hostname": hostname,
        "mounts": _mounts(config, paths),
        "linux": _linux(config, facts, cgroups_path, caps),
    }
    if facts.seccomp_filter is not None and not config.privileged:
        spec["annotations"] = {SECCOMP_ANNOTATION: facts.seccomp_filter}
    return spec


def _process(
    config: ContainerConfig,
    image: ImageConfig,
    user: ProcessUser,
    hostname: str,
    caps: tuple[str, ...],
) -> dict[str, Any]:
    args = process_args(config, image)
    # As docker: another user than root gets no rights but those of set-uid programs, within the bound.
    held = list(caps) if user.uid == 0 else []
    return {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": ["/dev/init", "--", *args] if config.init else list(args),
        "env": process_env(config, image, hostname, user.home),
        "cwd": _absolute("working directory", config.working_dir or image.working_dir or "/"),
        "capabilities": {"bounding": list(caps), "permitted": held, "effective": held},
        "rlimits": [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft, "hard": limit.hard} for limit in config.ulimits
        ],
        "noNewPrivileges": False,
    }


def _mounts(config: ContainerConfig, paths: BundlePaths) -> list[dict[str, Any]]:
    own = [
        _bind(paths.resolv_conf, "/etc/resolv.conf"),
        _bind(paths.hostname, "/etc/hostname"),
        _bind(paths.hosts, "/etc/hosts"),
    ]
    if config.init and paths.init:
        own.append(_bind(paths.init, "/dev/init", "ro"))
    wanted = [_user_mount(mount) for mount in config.mounts]
    taken = {mount["destination"] for mount in wanted}
    base = [*defaults.base_mounts(privileged=config.privileged), *own]
    # Parents come before what lies in them, whoever asked for them.
    return [
        *(mount for mount in base if mount["destination"] not in taken),
        *sorted(wanted, key=lambda mount: mount["destination"].count("/")),
    ]


def _bind(source: str, target: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate", *options]}


def _user_mount(mount: Mount) -> dict[str, Any]:
    target = _absolute("mount target", mount.target)
    if target == "/":
        raise InvalidArgument("invalid mount target '/': the container's root comes from its image")
    access = ("ro",) if mount.read_only else ()
    if mount.type == "tmpfs":
        options = ["nosuid", "nodev", "noexec", *access, *mount.options]
        return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
    _absolute("mount source", mount.source)
    return _bind(mount.source, target, *access, *mount.options)


def _absolute(what: str, path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"invalid {what} '{path}': it must be an absolute path")
    return posixpath.normpath(path)


def _linux(config: ContainerConfig, facts: HostFacts, cgroups_path: str, caps: tuple[str, ...]) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "cgroupsPath": cgroups_path,
        "namespaces": _namespaces(config, facts),
        "resources": _resources(config),
        "sysctl": dict(config.sysctls),
        "rootfsPropagation": "rprivate",
    }
    if config.privileged:
        linux["devices"] = [
            {"path": path, "type": kind, "major": major, "minor": minor} for path, kind, major, minor in facts.devices
        ]
        return linux
    linux["maskedPaths"] = list(defaults.MASKED_PATHS)
    linux["readonlyPaths"] = list(defaults.READONLY_PATHS)
    seccomp: msgspec.Raw | None = encoded_profile(facts.architecture, frozenset(caps))
    if seccomp is not None:
        linux["seccomp"] = seccomp
    return linux


def _namespaces(config: ContainerConfig, facts: HostFacts) -> list[dict[str, str]]:
    namespaces = [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]
    if facts.cgroup_version == 2:  # as docker: with v1 the container sees the host's tree, read-only
        namespaces.append({"type": "cgroup"})
    if config.host_network:
        return namespaces
    network = {"type": "network"}
    if config.netns_path is not None:
        network["path"] = config.netns_path
    return [*namespaces, network]


def _resources(config: ContainerConfig) -> dict[str, Any]:
    rules = defaults.PRIVILEGED_DEVICE_RULES if config.privileged else defaults.DEVICE_RULES
    resources: dict[str, Any] = {"devices": rules}
    if config.memory_bytes:
        # Swap is limited to the same again, as docker does where only the memory is given.
        resources["memory"] = {"limit": config.memory_bytes, "swap": 2 * config.memory_bytes}
    cpu: dict[str, int] = {}
    if config.nano_cpus:
        cpu |= {"period": CPU_PERIOD_US, "quota": max(1000, config.nano_cpus * CPU_PERIOD_US // 1_000_000_000)}
    if config.cpu_shares:
        cpu["shares"] = config.cpu_shares
    if cpu:
        resources["cpu"] = cpu
    if config.pids_limit > 0:
        resources["pids"] = {"limit": config.pids_limit}
    return resources
