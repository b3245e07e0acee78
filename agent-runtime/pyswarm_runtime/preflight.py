"""What this host can do, and what is chosen accordingly. A refusal says what to install or to change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pyswarm_common.errors import Unsupported
from pyswarm_runtime.cgroups import CgroupLayout
from pyswarm_runtime.types import Preflight, RuntimeConfig

_EXTRA_PATHS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/libexec/podman")
_INIT_NAMES = ("docker-init", "tini", "catatonit")


def find_program(name: str) -> str | None:
    """Also where a service's PATH may not lead."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_EXTRA_PATHS))


def find_init() -> str | None:
    return next((path for name in _INIT_NAMES if (path := find_program(name))), None)


def check_host(config: RuntimeConfig, layout: CgroupLayout) -> Preflight:
    if os.geteuid() != 0:
        raise Unsupported("containers need root: start this as root (sudo)")
    conmon = find_program("conmon")
    if conmon is None:
        raise Unsupported("conmon is not installed: apt-get install conmon")
    if not layout.hierarchies:
        raise Unsupported("no control groups are mounted at /sys/fs/cgroup: mount cgroup2 there")
    name, path, notes = _choose_runtime(config.oci_runtime, layout)
    _check_overlayfs()
    return Preflight(
        oci_runtime=name,
        oci_runtime_path=path,
        conmon_path=conmon,
        cgroup_version=layout.version,
        cgroup_hybrid=layout.is_hybrid,
        storage_driver="overlayfs",
        notes=notes,
    )


def _choose_runtime(wanted: str | None, layout: CgroupLayout) -> tuple[str, str, tuple[str, ...]]:
    """crun is about three times faster; it refuses hybrid control groups, where runc is the answer."""
    if wanted is not None:
        path = find_program(wanted)
        if path is None:
            raise Unsupported(f"the OCI runtime '{wanted}' is not installed: install it or leave the choice open")
        return Path(wanted).name, path, ()
    crun, runc = find_program("crun"), find_program("runc")
    if crun and not layout.is_hybrid:
        return "crun", crun, ()
    if runc:
        reason = "crun refuses hybrid control groups" if crun else "crun is not installed"
        return "runc", runc, (f"runc since {reason}",)
    if crun:
        raise Unsupported("crun refuses hybrid control groups: install runc, or boot with cgroup v2 only")
    raise Unsupported("no OCI runtime is installed: apt-get install crun")


def _check_overlayfs() -> None:
    known = Path("/proc/filesystems").read_text().split()
    # As a module it is loaded by the first mount; then only the mount itself can tell.
    if "overlay" not in known and not any(Path("/lib/modules", os.uname().release).rglob("overlay.ko*")):
        raise Unsupported("this kernel has no overlayfs: load the module 'overlay' or use a kernel that has it")
