"""The daemon's own limit of open files: as high as it may be.

Each sandbox holds three descriptors and each container one; the usual soft limit of 1024 would end at some 250 tasks.
Containers do not inherit it: they get docker's default (see the agent's `core/assembly.py`).
"""

from __future__ import annotations

import resource


def raise_open_files() -> int:
    """To the hard limit, for which no right is needed. Returns what holds now."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
