"""What this machine says of itself to the managers."""

from __future__ import annotations

import os
import platform
import socket
from importlib import metadata
from pathlib import Path

from msgspec.structs import replace

from pyswarm_common.model import GenericResource, NodeDescription, Plugin, Resources, TunnelKey
from pyswarm_common.network_options import ENCRYPTED
from pyswarm_overlay.encryption.encryption import Encryption
from pyswarm_runtime.devices import device_paths
from pyswarm_runtime.log_drivers import log_drivers
from pyswarm_runtime.types import Preflight

from .routes import routed_subnets

_NANO = 1_000_000_000
MAX_DEVICES = 1024  # beyond it none is named, and the node is asked for any
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


_PID_MAX = Path("/proc/sys/kernel/pid_max")


def version() -> str:
    try:
        return metadata.version("pyswarm-cluster")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "dev"


def describe(
    preflight: Preflight, data_path_address: str, agent_address: str, generic: tuple[GenericResource, ...] = ()
) -> NodeDescription:
    return NodeDescription(
        hostname=socket.gethostname(),
        os="linux",
        architecture=platform.machine(),
        resources=Resources(nano_cpus=cpus() * _NANO, memory_bytes=memory_bytes(), pids=pids(), generic=generic),
        engine_version=version(),
        data_path_address=data_path_address,
        agent_address=agent_address,
        capabilities=capabilities(preflight),
        plugins=plugins(),
        devices=device_paths(MAX_DEVICES),
        routed_subnets=routed_subnets(),
    )


def with_tunnels(description: NodeDescription, encryption: Encryption) -> NodeDescription:
    """With what this node can encrypt by, and the keys that its peers must know."""
    able = () if encryption.unable else (Plugin("Network", ENCRYPTED),)
    keys = tuple(TunnelKey(key.public_key, key.port, key.number) for key in encryption.announced())
    return replace(description, plugins=(*description.plugins, *able), tunnel_keys=keys)


def plugins() -> tuple[Plugin, ...]:
    """What tasks may ask of this node by name; docker's names of the kinds."""
    kinds = {"Log": log_drivers(), "Network": ("bridge", "host", "macvlan", "null", "overlay"), "Volume": ("local",)}
    return tuple(Plugin(type=kind, name=name) for kind, names in kinds.items() for name in names)


def capabilities(preflight: Preflight) -> dict[str, str]:
    """What was chosen, and what is missing."""
    found = {
        "oci_runtime": preflight.oci_runtime,
        "cgroups": f"v{preflight.cgroup_version}" + (" hybrid" if preflight.cgroup_hybrid else ""),
        "storage": preflight.storage_driver,
        "kernel": platform.release(),
    }
    if preflight.notes:
        found["notes"] = "; ".join(preflight.notes)
    return found


def cpus() -> int:
    """Those that we may use."""
    return len(os.sched_getaffinity(0))


def pids() -> int:
    """As many processes as the machine can have at once."""
    try:
        return int(_PID_MAX.read_text())
    except (OSError, ValueError):
        return 0


def memory_bytes() -> int:
    """The machine's, or the limit that is set for us."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY_LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max" is no limit
            return min(total, int(text))
    return total
