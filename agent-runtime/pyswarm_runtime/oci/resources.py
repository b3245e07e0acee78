"""What a container may use: memory, processors, processes, devices, limits of its processes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.oci import defaults
from pyswarm_runtime.types import MIB, ContainerConfig, Ulimit

CPU_PERIOD_US = 100_000
MIN_MEMORY_BYTES = 6 * MIB
UNLIMITED = 2**64 - 1  # RLIM_INFINITY
ULIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)
_PERMISSIONS = re.compile("[rwm]{1,3}")


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device as it is in the container."""

    path: str
    kind: str  # c or b
    major: int
    minor: int
    access: str = "rwm"
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


def check_resources(config: ContainerConfig) -> None:
    """Refuses what no host could grant."""
    amounts = (config.nano_cpus, config.memory_bytes, config.cpu_shares, config.shm_size_bytes, config.log_max_size)
    if min(amounts) < 0 or config.log_max_files < 1:
        raise InvalidArgument("limits cannot be negative, and at least one log file must be kept")
    if 0 < config.memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    _check_swap(config)
    if not -1000 <= config.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {config.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    for limit in config.ulimits:
        rlimit(limit)
    for device in config.devices:
        if not _PERMISSIONS.fullmatch(device.permissions):
            raise InvalidArgument(f"invalid device mode: {device.permissions}: write any of r, w and m")


def _check_swap(config: ContainerConfig) -> None:
    swap = config.memory_swap_bytes
    if swap is not None and swap > 0 and not config.memory_bytes:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if swap is not None and 0 < swap < config.memory_bytes:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if config.memory_swappiness is not None and not 0 <= config.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {config.memory_swappiness}, valid memory swappiness range is 0-100")


def rlimit(limit: Ulimit) -> dict[str, Any]:
    """As the process gets it."""
    if limit.name not in ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {limit.name}")
    soft, hard = (UNLIMITED if value == -1 else value for value in (limit.soft, limit.hard))
    if min(soft, hard) < 0 or soft > hard:
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
        )
    return {"type": f"RLIMIT_{limit.name.upper()}", "soft": soft, "hard": hard}


def resources(config: ContainerConfig, devices: tuple[DeviceNode, ...], cgroup_version: int) -> dict[str, Any]:
    """The part that control groups enforce."""
    rules = defaults.PRIVILEGED_DEVICE_RULES if config.privileged else [*defaults.DEVICE_RULES, *_rules(devices)]
    found: dict[str, Any] = {"devices": rules}
    memory = _memory(config, cgroup_version)
    if memory:
        found["memory"] = memory
    cpu: dict[str, int] = {}
    if config.nano_cpus:
        cpu |= {"period": CPU_PERIOD_US, "quota": max(1000, config.nano_cpus * CPU_PERIOD_US // 1_000_000_000)}
    if config.cpu_shares:
        cpu["shares"] = config.cpu_shares
    if cpu:
        found["cpu"] = cpu
    if config.pids_limit > 0:
        found["pids"] = {"limit": config.pids_limit}
    return found


def _memory(config: ContainerConfig, cgroup_version: int) -> dict[str, int]:
    memory: dict[str, int] = {}
    if config.memory_bytes:
        # Swap is limited to the same again, as docker does where only the memory is given.
        swap = config.memory_swap_bytes or 2 * config.memory_bytes
        memory = {"limit": config.memory_bytes, "swap": swap}
    # Version 2 has no swappiness of a group; docker leaves it out there as well.
    if config.memory_swappiness is not None and cgroup_version == 1:
        memory["swappiness"] = config.memory_swappiness
    return memory


def _rules(devices: tuple[DeviceNode, ...]) -> list[dict[str, Any]]:
    return [
        {"allow": True, "type": node.kind, "major": node.major, "minor": node.minor, "access": node.access}
        for node in devices
    ]


def device_nodes(devices: tuple[DeviceNode, ...]) -> list[dict[str, Any]]:
    """The nodes that the OCI runtime makes below /dev."""
    return [
        {
            "path": node.path,
            "type": node.kind,
            "major": node.major,
            "minor": node.minor,
            "fileMode": node.mode,
            "uid": node.uid,
            "gid": node.gid,
        }
        for node in devices
    ]
