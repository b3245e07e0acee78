"""From a container's configuration and its image's to the OCI `config.json`. Pure: the same input, the same bytes.

Decides the process, its rights, mounts, namespaces and limits. It never looks at the host: whatever depends on it comes
in as `HostFacts` and `BundlePaths`. The result goes to conmon, which hands it to the OCI runtime.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.oci import defaults
from pyswarm_runtime.oci.mounts import BundlePaths, absolute, all_mounts, root_propagation, user_mount
from pyswarm_runtime.oci.resources import DeviceNode, check_resources, device_nodes, resources, rlimit
from pyswarm_runtime.oci.seccomp import encoded_profile
from pyswarm_runtime.oci.seccomp_profile import check_profile, custom_profile
from pyswarm_runtime.types import ContainerConfig, ImageConfig
from pyswarm_runtime.users import ProcessUser

OCI_VERSION = "1.0.2"
SECCOMP_ANNOTATION = "run.oci.seccomp_bpf_data"  # of crun; others pay it no heed
UNCONFINED = "unconfined"


@dataclass(frozen=True, slots=True)
class HostFacts:
    architecture: str  # as uname has it
    cgroup_version: int
    seccomp_filter: str | None = None  # compiled for these capabilities, in base64; None: the OCI runtime compiles it
    devices: tuple[DeviceNode, ...] = ()  # what was asked for; of a privileged container all that the host has
    capabilities: frozenset[str] = frozenset(defaults.ALL_CAPABILITIES)  # what this process may hand on
    oom_score_adj: int = 0  # of this process: a container inherits it
    has_apparmor: bool = False


def validate(config: ContainerConfig, image: ImageConfig) -> None:
    """Refuses what no host could run: asked when a container is created, so that the mistake shows at once."""
    process_args(config, image)
    capabilities(config, frozenset(defaults.ALL_CAPABILITIES))
    absolute("working directory", config.working_dir or image.working_dir or "/")
    for mount in config.mounts:
        # A volume's name becomes a path only when the container starts.
        user_mount(msgspec.structs.replace(mount, source="/") if mount.type == "volume" else mount)
    if config.host_network and config.netns_path is not None:
        raise InvalidArgument("a container has either the host's network or a namespace of its own, not both")
    check_resources(config)
    if config.seccomp_profile not in ("", UNCONFINED):
        check_profile(config.seccomp_profile)


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
        "process": _process(config, image, user, hostname, caps, facts),
        "root": {"path": paths.rootfs, "readonly": config.read_only},
        "hostname": hostname,
        "mounts": all_mounts(config, paths),
        "linux": _linux(config, facts, cgroups_path, caps),
    }
    if facts.seccomp_filter is not None and not config.privileged and not config.seccomp_profile:
        spec["annotations"] = {SECCOMP_ANNOTATION: facts.seccomp_filter}
    return spec


def _process(
    config: ContainerConfig,
    image: ImageConfig,
    user: ProcessUser,
    hostname: str,
    caps: tuple[str, ...],
    facts: HostFacts,
) -> dict[str, Any]:
    args = process_args(config, image)
    # As docker: another user than root gets no rights but those of set-uid programs, within the bound.
    held = list(caps) if user.uid == 0 else []
    return {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.additional_gids)},
        "args": ["/dev/init", "--", *args] if config.init else list(args),
        "env": process_env(config, image, hostname, user.home),
        "cwd": absolute("working directory", config.working_dir or image.working_dir or "/"),
        "capabilities": {"bounding": list(caps), "permitted": held, "effective": held},
        "rlimits": [rlimit(limit) for limit in config.ulimits],
        "noNewPrivileges": config.no_new_privileges,
        **_oom_score_adj(config, facts),
        **_apparmor(config, facts),
    }


def _oom_score_adj(config: ContainerConfig, facts: HostFacts) -> dict[str, int]:
    """Left out where it would be refused and nobody asked: lowering takes a right that some hosts lack."""
    wanted, own = config.oom_score_adj, facts.oom_score_adj
    if wanted == own or (wanted == 0 and own > 0 and "CAP_SYS_RESOURCE" not in facts.capabilities):
        return {}
    return {"oomScoreAdj": wanted}


def _apparmor(config: ContainerConfig, facts: HostFacts) -> dict[str, str]:
    """Privileged containers are confined by none unless they ask for it."""
    profile = config.apparmor_profile or (UNCONFINED if config.privileged else "")
    return {"apparmorProfile": profile} if profile and facts.has_apparmor else {}


def _linux(config: ContainerConfig, facts: HostFacts, cgroups_path: str, caps: tuple[str, ...]) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "cgroupsPath": cgroups_path,
        "namespaces": _namespaces(config, facts),
        "resources": resources(config, facts.devices, facts.cgroup_version),
        "sysctl": dict(config.sysctls),
        "rootfsPropagation": root_propagation(config),
    }
    if facts.devices:
        linux["devices"] = device_nodes(facts.devices)
    if not config.privileged:
        linux["maskedPaths"] = list(defaults.MASKED_PATHS)
        linux["readonlyPaths"] = list(defaults.READONLY_PATHS)
    seccomp = _seccomp(config, facts, caps)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    return linux


def _seccomp(config: ContainerConfig, facts: HostFacts, caps: tuple[str, ...]) -> msgspec.Raw | None:
    if config.seccomp_profile == UNCONFINED:
        return None
    if config.seccomp_profile:
        return custom_profile(config.seccomp_profile, facts.architecture, frozenset(caps))
    return None if config.privileged else encoded_profile(facts.architecture, frozenset(caps))


def _namespaces(config: ContainerConfig, facts: HostFacts) -> list[dict[str, str]]:
    shared = {"pid": config.host_pid, "ipc": config.host_ipc}
    namespaces = [{"type": kind} for kind in ("mount", "pid", "ipc", "uts") if not shared.get(kind)]
    if facts.cgroup_version == 2:  # as docker: with v1 the container sees the host's tree, read-only
        namespaces.append({"type": "cgroup"})
    if config.host_network:
        return namespaces
    network = {"type": "network"}
    if config.netns_path is not None:
        network["path"] = config.netns_path
    return [*namespaces, network]
