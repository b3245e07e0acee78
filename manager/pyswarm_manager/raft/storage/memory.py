"""A disk in memory that forgets, when it crashes, whatever was written and not synced. For tests and the simulator."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_manager.raft.core.types import Entry, HardState, Snapshot
from pyswarm_manager.raft.storage.port import Stored


class MemoryStorage:
    """`save` writes and syncs, as the port promises; the simulator calls `write` and `sync` apart, and `crash`."""

    def __init__(self) -> None:
        self._durable: Stored | None = None
        self._written: Stored | None = None

    def load(self) -> Stored | None:
        """What is stored, and synced from now on: it is counted on."""
        self.sync()
        return self._written

    def initialise(self, raft_id: int, hard_state: HardState, entries: Sequence[Entry]) -> None:
        """Begin a member's life."""
        self._written = Stored(raft_id, hard_state, Snapshot(), tuple(entries))
        self.sync()

    def save(self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        """Write and sync."""
        self.write(hard_state, entries, snapshot)
        self.sync()

    def save_snapshot(self, snapshot: Snapshot, first_kept: int) -> None:
        """Store a snapshot and shorten the log."""
        old = self._present()
        kept = tuple(entry for entry in old.entries if entry.index >= min(first_kept, snapshot.index + 1))
        self._written = Stored(old.raft_id, old.hard_state, snapshot, _after(snapshot, kept))
        self.sync()

    def write(self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        """Write without syncing."""
        old = self._present()
        log = () if snapshot is not None else old.entries
        if entries:
            log = tuple(entry for entry in log if entry.index < entries[0].index) + tuple(entries)
        base = old.snapshot if snapshot is None else snapshot
        self._written = Stored(old.raft_id, hard_state, base, _after(base, log))

    def sync(self) -> None:
        """What was written will survive a crash."""
        self._durable = self._written

    def crash(self) -> None:
        """Lose what was not synced."""
        self._written = self._durable

    def durable(self) -> Stored | None:
        """What would survive a crash now."""
        return self._durable

    def close(self) -> None:
        """Nothing to let go of."""

    def _present(self) -> Stored:
        assert self._written is not None, "the storage was not initialised"
        return self._written


def _after(snapshot: Snapshot, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries if entry.index > snapshot.index)
