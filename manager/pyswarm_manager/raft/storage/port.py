"""What the driver needs of a disk.

Every method blocks; the driver calls them from one thread, one at a time. `save` returns only when what it was given
would survive a power cut. Whoever cannot keep that promise raises `StorageFailed`, and the process ends: after a failed
sync nobody knows what is on the disk, so there is nothing to retry. A full disk is another matter (`StorageFull`):
nothing was written, so the same call may be made again when there is room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from pyswarm_manager.raft.core.types import Entry, HardState, Snapshot


class StorageFailed(Exception):
    """The disk did not take a write. The process must end; a restart finds out what was stored."""


class StorageFull(Exception):
    """The disk has no room. What is stored is as it was before the call, which may be made again."""


class StorageCorrupt(Exception):
    """What is stored is not what was written: refuse to start rather than vote with a wrong memory."""


class Stored(msgspec.Struct, frozen=True):
    """What a member finds when it starts. The entries follow the snapshot without a gap."""

    raft_id: int
    hard_state: HardState
    snapshot: Snapshot
    entries: tuple[Entry, ...]


class RaftStorage(Protocol):
    """One member's memory."""

    def load(self) -> Stored | None:
        """What is stored; None on a fresh disk. A power cut would not take it back, not even what a killed process had
        written and not synced: the caller counts on it. Raises StorageCorrupt."""
        ...

    def initialise(self, raft_id: int, hard_state: HardState, entries: Sequence[Entry]) -> None:
        """Begin a member's life. Durable on return."""
        ...

    def save(self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        """One transaction, durable on return. A snapshot replaces the whole log; entries replace what is stored from
        the first one's index on."""
        ...

    def save_snapshot(self, snapshot: Snapshot, first_kept: int) -> None:
        """Store a snapshot of our own state, and forget the entries before `first_kept`. Durable on return."""
        ...

    def close(self) -> None:
        """Let go of the disk."""
        ...
