"""Control groups, version 2 and 1: which there is, what a container's group says, and taking away empty ones.

The OCI runtime makes a container's group and sets its limits; this only reads, places conmon, and removes. It never
touches a group outside the parent that the runtime was given.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pyswarm_runtime.usage import ContainerUsage, read_usage

ROOT = Path("/sys/fs/cgroup")
SYSTEMD_RUNS = Path("/run/systemd/system")
MONITOR_GROUP = "conmon"
MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class CgroupLayout:
    version: Literal[1, 2]
    is_hybrid: bool
    hierarchies: tuple[Path, ...]  # for v2 the one root


def detect(root: Path = ROOT) -> CgroupLayout:
    if (root / "cgroup.controllers").exists():
        return CgroupLayout(2, False, (root,))
    directories = sorted(entry for entry in root.iterdir() if not entry.is_symlink()) if root.is_dir() else []
    # `unified` stays in the list where it is not mounted: crun makes directories there all the same.
    hierarchies = tuple(entry for entry in directories if entry.name == "unified" or (entry / "cgroup.procs").exists())
    is_hybrid = (root / "unified" / "cgroup.controllers").exists()
    return CgroupLayout(1, is_hybrid, hierarchies)


class ContainerGroups:
    """The groups of one runtime's containers, all below `parent`."""

    def __init__(self, layout: CgroupLayout, parent: str) -> None:
        self._layout = layout
        self._parent = PurePosixPath("/" + parent.strip("/"))

    def path_of(self, container_id: str) -> str:
        """As the OCI configuration names it."""
        return str(self._parent / container_id)

    def usage(self, container_id: str) -> ContainerUsage | None:
        """What the container uses; None if that cannot be told, as of one that has ended."""
        return read_usage(self._layout.version, self._layout.hierarchies, self.path_of(container_id))

    def adopt_monitor(self, pid: int) -> None:
        """Puts conmon into a group of its own, so that ending the daemon's service does not end containers.

        Only where systemd would look: the one tree of v2, `name=systemd` of v1; elsewhere moving a process between
        groups would be time wasted (milliseconds each). Best effort: a container runs as well without.
        """
        for hierarchy in self._monitor_hierarchies():
            with suppress(OSError):
                group = self._directory(hierarchy, self._parent / MONITOR_GROUP)
                group.mkdir(parents=True, exist_ok=True)
                (group / "cgroup.procs").write_text(str(pid))

    def is_oom_killed(self, container_id: str) -> bool:
        """Whether the kernel killed a process of this container for want of memory. Ask before the group is removed."""
        name, key = ("memory.events", "oom_kill") if self._layout.version == 2 else ("memory.oom_control", "oom_kill")
        for hierarchy in self._layout.hierarchies:
            with suppress(OSError, ValueError):
                text = (self._directory(hierarchy, self._parent / container_id) / name).read_text()
                counts = dict(line.split() for line in text.splitlines())
                return int(counts.get(key, "0")) > 0
        return False

    def kill_all(self, container_id: str) -> None:
        """SIGKILL to whatever is left in a container's group: for when its monitor is gone."""
        for hierarchy in self._layout.hierarchies:
            group = self._directory(hierarchy, self._parent / container_id)
            with suppress(OSError, ValueError):
                for line in (group / "cgroup.procs").read_text().split():
                    os.kill(int(line), 9)

    def remove(self, container_id: str) -> None:
        """Whatever the OCI runtime left of a container's groups."""
        for hierarchy in self._layout.hierarchies:
            _remove_tree(self._directory(hierarchy, self._parent / container_id), MAX_DEPTH)

    def remove_parent(self) -> None:
        """The parent and what is above it, as far as they are empty."""
        for hierarchy in self._layout.hierarchies:
            _remove_tree(self._directory(hierarchy, self._parent / MONITOR_GROUP), 1)
            for path in (self._parent, *self._parent.parents):
                if path == PurePosixPath("/"):
                    break
                try:
                    self._directory(hierarchy, path).rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    break

    def _monitor_hierarchies(self) -> list[Path]:
        if not SYSTEMD_RUNS.is_dir():
            return []
        if self._layout.version == 2:
            return list(self._layout.hierarchies)
        return [path for path in self._layout.hierarchies if path.name == "systemd"]

    @staticmethod
    def _directory(hierarchy: Path, path: PurePosixPath) -> Path:
        return hierarchy / path.relative_to("/")


def _remove_tree(group: Path, depth: int) -> None:
    with suppress(OSError):
        if depth > 0:
            for child in group.iterdir():
                if child.is_dir():
                    _remove_tree(child, depth - 1)
        try:
            group.rmdir()
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:  # a plain directory: see `detect`; a control group would be busy
                shutil.rmtree(group)
