"""What this host can do, and what is chosen accordingly. A refusal says what to install or to change."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from pyswarm_common.errors import Unsupported
from pyswarm_runtime.cgroups import CgroupLayout
from pyswarm_runtime.oci.defaults import ALL_CAPABILITIES, capabilities_in
from pyswarm_runtime.types import Preflight, RuntimeConfig

_EXTRA_PATHS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/libexec/podman")
# Those that are linked statically first: an image need not have the libraries of the others.
_INIT_NAMES = ("docker-init", "tini-static", "catatonit", "tini")


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


def own_capabilities() -> frozenset[str]:
    """What this process may hand on: on some hosts even root lacks some."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return capabilities_in(int(line.split()[1], 16))
    return frozenset(ALL_CAPABILITIES)


def _choose_runtime(wanted: str | None, layout: CgroupLayout) -> tuple[str, str, tuple[str, ...]]:
    """crun is about three times faster; where it cannot, runc is the answer."""
    if wanted is not None:
        path = find_program(wanted)
        if path is None:
            raise Unsupported(f"the OCI runtime '{wanted}' is not installed: install it or leave the choice open")
        return Path(wanted).name, path, ()
    crun, runc = find_program("crun"), find_program("runc")
    obstacle = _obstacle_to_crun(layout) if crun else "crun is not installed"
    if crun and obstacle is None:
        return "crun", crun, ()
    if runc:
        return "runc", runc, (f"runc since {obstacle}",)
    if crun:
        raise Unsupported(f"{obstacle}: apt-get install runc")
    raise Unsupported("no OCI runtime is installed: apt-get install crun")


def _obstacle_to_crun(layout: CgroupLayout) -> str | None:
    if layout.is_hybrid:
        return "crun refuses hybrid control groups"
    _, locked_memory = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    may_raise = "CAP_SYS_RESOURCE" in own_capabilities()
    if layout.version == 2 and not may_raise and locked_memory != resource.RLIM_INFINITY:
        # Otherwise every start would fail: it raises the limit before it loads the device filter.
        return "crun needs CAP_SYS_RESOURCE or an unlimited RLIMIT_MEMLOCK with cgroup v2"
    return None


def _check_overlayfs() -> None:
    known = Path("/proc/filesystems").read_text().split()
    # As a module it is loaded by the first mount; then only the mount itself can tell.
    if "overlay" not in known and not any(Path("/lib/modules", os.uname().release).rglob("overlay.ko*")):
        raise Unsupported("this kernel has no overlayfs: load the module 'overlay' or use a kernel that has it")
