"""What is mounted in a container: its own file systems, the daemon's files, and what the user asked for. Pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime.oci import defaults
from pyswarm_runtime.types import ContainerConfig, Mount

PROPAGATIONS = ("rprivate", "private", "rshared", "shared", "rslave", "slave")


@dataclass(frozen=True, slots=True)
class BundlePaths:
    """Where this container's things lie on the host."""

    rootfs: str
    hosts: str
    hostname: str
    resolv_conf: str
    init: str | None = None  # of docker-init, tini or catatonit
    host_ipc: tuple[str, ...] = ()  # of the mounts that a container shares with the host's IPC, those that there are


def all_mounts(config: ContainerConfig, paths: BundlePaths) -> list[dict[str, Any]]:
    """In the order in which they are made: parents before what lies in them, whoever asked for them."""
    own = [
        _bind(paths.resolv_conf, "/etc/resolv.conf"),
        _bind(paths.hostname, "/etc/hostname"),
        _bind(paths.hosts, "/etc/hosts"),
    ]
    if config.init and paths.init:
        own.append(_bind(paths.init, "/dev/init", "ro"))
    wanted = [user_mount(mount) for mount in config.mounts]
    taken = {mount["destination"] for mount in wanted}
    base = defaults.base_mounts(
        privileged=config.privileged,
        shm_bytes=config.shm_size_bytes or defaults.SHM_BYTES,
        host_ipc=config.host_ipc,
    )
    there = [mount for mount in base if mount["type"] != "bind" or mount["source"] in paths.host_ipc]
    return [
        *(mount for mount in [*there, *own] if mount["destination"] not in taken),
        *sorted(wanted, key=lambda mount: mount["destination"].count("/")),
    ]


def root_propagation(config: ContainerConfig) -> str:
    """As far as its mounts must hear of the host's, and the host of theirs, the container's root must let them."""
    wanted = {mount.propagation for mount in config.mounts if mount.type == "bind"}
    if wanted & {"shared", "rshared"}:
        return "shared"
    return "rslave" if wanted & {"slave", "rslave"} else "rprivate"


def user_mount(mount: Mount) -> dict[str, Any]:
    """One that the user asked for, as the OCI runtime wants it."""
    target = absolute("mount target", mount.target)
    if target == "/":
        raise InvalidArgument("invalid mount target '/': the container's root comes from its image")
    access = ("ro",) if mount.read_only else ()
    if mount.type == "tmpfs":
        options = ["nosuid", "nodev", "noexec", *access, *mount.options]
        return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
    absolute("mount source", mount.source)
    propagation = mount.propagation or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidArgument(f"invalid propagation mode: {propagation}: choose one of {', '.join(PROPAGATIONS)}")
    # crun takes the r of any of its words for all of them.
    how = ("bind", propagation.removeprefix("r")) if mount.non_recursive else ("rbind", propagation)
    options = [*how, *access, *mount.options]
    return {"destination": target, "type": "bind", "source": mount.source, "options": options}


def absolute(what: str, path: str) -> str:
    """The path, normal; refused unless it is absolute."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"invalid {what} '{path}': it must be an absolute path")
    return posixpath.normpath(path)


def _bind(source: str, target: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate", *options]}
