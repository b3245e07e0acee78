"""The automatic backups on this manager's disk: their names, which of them there are, which are too many.

Blocking: called from a thread. A backup of another cluster (this machine was in one before) is listed and never
deleted: it may be all that is left of that cluster.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from pyswarm_common.backup.container import SUFFIX, Header, Reader
from pyswarm_common.errors import PyswarmError

_PREFIX = "auto-"
MAX_LISTED = 1_000


@dataclass(frozen=True, slots=True)
class Kept:
    """One file."""

    path: Path
    size_bytes: int
    header: Header | None
    error: str = ""

    @property
    def made_at(self) -> float:
        """Unix seconds; 0 for a file that cannot be read."""
        return self.header.created_at if self.header is not None else 0.0


def name_of(cluster_id: str, index: int, now: float) -> str:
    """Sorts by age; several backups of one second differ by index."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return f"{_PREFIX}{cluster_id}-{moment}-{index}{SUFFIX}"


def listed(directory: Path) -> list[Kept]:
    """Newest first."""
    found = [_read(path) for path in sorted(directory.glob(f"*{SUFFIX}"), reverse=True)[:MAX_LISTED]]
    return sorted(found, key=lambda kept: (kept.made_at, kept.path.name), reverse=True)


def newest_of(backups: list[Kept], cluster_id: str) -> float:
    """When the newest of that cluster was made; 0 if there is none."""
    return max((kept.made_at for kept in _own(backups, cluster_id)), default=0.0)


def prune(directory: Path, cluster_id: str, keep: int) -> int:
    """Delete all but the newest `keep` automatic backups of the cluster, and what a crash left half written."""
    for draft in directory.glob(f".{_PREFIX}*.part"):
        draft.unlink(missing_ok=True)
    too_many = [kept for kept in _own(listed(directory), cluster_id) if kept.path.name.startswith(_PREFIX)][keep:]
    for kept in too_many:
        kept.path.unlink(missing_ok=True)
    return len(too_many)


def _own(backups: list[Kept], cluster_id: str) -> list[Kept]:
    return [kept for kept in backups if kept.header is not None and kept.header.cluster_id == cluster_id]


def _read(path: Path) -> Kept:
    size = 0
    try:
        with path.open("rb") as file:
            with contextlib.suppress(OSError):
                size = path.stat().st_size
            return Kept(path, size, Reader(file).header)
    except PyswarmError as error:
        return Kept(path, size, None, str(error))
    except OSError as error:
        return Kept(path, size, None, f"cannot be read: {error.strerror}")
