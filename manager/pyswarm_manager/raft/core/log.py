"""The log of one member, in memory, with a note of how much of it is on disk, committed and handed out.

Invariants: `base <= applied <= committed <= last` and `stable <= last`; an entry that is committed never changes.
The shell persists what `unstable()` gives and calls `stable_to`; it alone touches the disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm_manager.raft.core.types import Entry, EntryKind, Snapshot

KEEP_BYTES = 16 * 1024 * 1024
"""Of the entries before a snapshot, at most."""

ENTRY_OVERHEAD = 24
"""Bytes an entry costs on the wire beside its data, roughly."""


class RaftLog:
    """Entries after `base`, which is where the log was compacted (0 for a whole log)."""

    __slots__ = ("_configs", "_entries", "applied", "base_index", "base_term", "committed", "snapshot", "stable")

    def __init__(self, snapshot: Snapshot, entries: Sequence[Entry]) -> None:
        self.snapshot = snapshot
        self.base_index, self.base_term = snapshot.index, snapshot.term
        self._entries = [entry for entry in entries if entry.index > snapshot.index]
        self._configs = [e.index for e in self._entries if e.kind is EntryKind.CONFIG]
        for expected, entry in enumerate(self._entries, self.base_index + 1):
            assert entry.index == expected, f"the log has a gap: entry {entry.index} where {expected} belongs"
        self.committed = self.applied = snapshot.index
        self.stable = self.last_index

    @property
    def last_index(self) -> int:
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    def term(self, index: int) -> int | None:
        """The term of the entry at `index`; None where the log does not reach (compacted away, or not yet there)."""
        offset = index - self.base_index
        if offset == 0:
            return self.base_term
        if 0 < offset <= len(self._entries):
            return self._entries[offset - 1].term
        return None

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends like this holds at least what ours does (thesis §3.6.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries right after the last one."""
        assert entries[0].index == self.last_index + 1, "entries must follow the last one"
        self._entries.extend(entries)
        self._configs.extend(e.index for e in entries if e.kind is EntryKind.CONFIG)

    def merge(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        """Take a leader's entries; the index up to which the logs now agree, or None if they differ at `prev_index`."""
        if self.term(prev_index) != prev_term:
            return None
        for position, entry in enumerate(entries):
            if self.term(entry.index) != entry.term:
                self._truncate(entry.index)
                self.append(entries[position:])
                break
        return prev_index + len(entries)

    def _truncate(self, index: int) -> None:
        """Forget the entries from `index` on."""
        if index > self.last_index:
            return
        assert index > self.committed, f"entry {index} is committed (up to {self.committed}) and would be overwritten"
        del self._entries[index - self.base_index - 1 :]
        while self._configs and self._configs[-1] >= index:
            self._configs.pop()
        self.stable = min(self.stable, index - 1)

    def conflict_hint(self, index: int, term: int) -> tuple[int, int]:
        """The highest place at or below `index` whose term is at most `term`: logs cannot agree above it."""
        index = min(index, self.last_index)
        while index > self.base_index:
            here = self.term(index)
            assert here is not None
            if here <= term:
                return index, here
            index -= 1
        return index, self.base_term

    def slice(self, first: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries from `first` on, at least one, about `max_bytes` at most."""
        start = first - self.base_index - 1
        assert start >= 0, "the slice begins before the log"
        size = 0
        for end in range(start, len(self._entries)):
            size += len(self._entries[end].data) + ENTRY_OVERHEAD
            if size > max_bytes and end > start:
                return tuple(self._entries[start:end])
        return tuple(self._entries[start:])

    def unstable(self) -> tuple[Entry, ...]:
        """The entries that are not on disk yet."""
        return tuple(self._entries[self.stable - self.base_index :])

    def stable_to(self, index: int, term: int) -> None:
        """The shell wrote everything up to here. If the entry changed meanwhile, what replaced it is still unstable."""
        if index > self.stable and self.term(index) == term:
            self.stable = index

    def changes_after(self, index: int) -> list[Entry]:
        """The membership changes after `index`."""
        if not self._configs or self._configs[-1] <= index:
            return []
        return [self._entries[i - self.base_index - 1] for i in self._configs if i > index]

    def commit_to(self, index: int) -> None:
        """Mark as committed."""
        if index <= self.committed:
            return
        assert index <= self.last_index, (
            f"told that {index} is committed, but the log ends at {self.last_index}: was this member's disk replaced?"
        )
        self.committed = index

    def take_committed(self, limit: int) -> tuple[Entry, ...]:
        """Hand out entries to apply, each exactly once: committed, and on our own disk."""
        end = min(self.committed, self.stable, self.applied + limit)
        if end <= self.applied:
            return ()
        start, self.applied = self.applied, end
        return tuple(self._entries[start - self.base_index : end - self.base_index])

    def restore(self, snapshot: Snapshot) -> None:
        """Start again from a snapshot, without entries."""
        self.snapshot = snapshot
        self.base_index, self.base_term = snapshot.index, snapshot.term
        self._entries, self._configs = [], []
        self.committed = self.applied = self.stable = snapshot.index

    def compact(self, snapshot: Snapshot, keep: int, keep_bytes: int) -> int:
        """A snapshot is on disk: forget entries before it but for the last `keep` of them, and fewer if those are
        large. Returns the first index that is kept."""
        assert snapshot.index <= self.applied, "a snapshot holds only what was applied"
        self.snapshot = snapshot
        base, size = snapshot.index, 0
        while base > max(self.base_index, snapshot.index - keep):
            size += len(self._entries[base - self.base_index - 1].data)
            if size > keep_bytes:
                break
            base -= 1
        term = self.term(base)
        assert term is not None
        del self._entries[: base - self.base_index]
        self._configs = [i for i in self._configs if i > base]
        self.base_index, self.base_term = base, term
        return base + 1
