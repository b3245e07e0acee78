"""The lab's own cgroups: daemons make them below /pyswarm-lab/<lab>/<host> in each hierarchy; here they are removed.

Never touches a group outside of that path.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pyswarm_lab.layout import CGROUP_ROOT

_MOUNTS = Path("/proc/self/mountinfo")


def hierarchies() -> list[Path]:
    """Where the cgroup hierarchies of this machine are mounted, v1 and v2."""
    out = []
    for line in _MOUNTS.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] in ("cgroup", "cgroup2"):
            out.append(Path(fields.split()[4]))
    return out


def existing(path: str) -> list[Path]:
    """The groups of that path in all hierarchies."""
    assert path.startswith(CGROUP_ROOT), path
    return [root / path for root in hierarchies() if (root / path).is_dir()]


def remove(path: str) -> None:
    """Remove the groups of that path with all below them; those with processes stay."""
    for top in existing(path):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def remove_empty_root() -> None:
    """Remove /pyswarm-lab itself where no other lab uses it."""
    for top in existing(CGROUP_ROOT):
        with contextlib.suppress(OSError):
            top.rmdir()
