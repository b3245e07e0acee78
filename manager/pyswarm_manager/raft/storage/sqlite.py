"""The log on SQLite: WAL mode with synchronous=FULL, so that one commit is one append and one fsync.

Each entry is sealed on its own, bound to its index, term and kind; one sealed row holds the hard state and where the
log ends, so that a changed, moved or missing entry is found when it is loaded. The write-ahead log is examined before
SQLite reads it (see `wal`). The database is held exclusively: a second process on the same directory is refused.

A write that finds no room is rolled back as a whole and may be tried again. After any other failure nothing more is
written.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pyswarm_manager.raft.core.types import Entry, EntryKind, HardState, Snapshot
from pyswarm_manager.raft.storage.port import StorageCorrupt, StorageFailed, StorageFull, Stored
from pyswarm_manager.raft.storage.sealer import Sealer
from pyswarm_manager.raft.storage.wal import find_damage

SCHEMA_VERSION = 2
CHECKPOINT_PAGES = 2000
"""The WAL is copied back after this many pages (8 MB): rarely, since that costs two more syncs."""
_WAL_BYTES = 32 + CHECKPOINT_PAGES * (4096 + 24)

_SCHEMA = """
CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE snapshot (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL);
CREATE TABLE entries (idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, kind INTEGER NOT NULL, sealed BLOB NOT NULL);
"""


class Head(msgspec.Struct, frozen=True):
    """The one row that changes with every write."""

    raft_id: int
    hard_state: HardState
    last_index: int
    last_term: int


_encode = msgspec.msgpack.encode
_decode_head = msgspec.msgpack.Decoder(Head).decode
_decode_snapshot = msgspec.msgpack.Decoder(Snapshot).decode
_place = struct.Struct(">5sQQB").pack


class SqliteStorage:
    """One member's log in one database file."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._head: Head | None = None
        self._failed = False
        self._db = _open(path)

    def load(self) -> Stored | None:
        """Read and check everything."""
        try:
            return None if self._is_fresh() else self._load()
        except sqlite3.Error as error:
            raise _corrupt(self._path, f"it cannot be read ({error})") from error
        except (StorageCorrupt, msgspec.MsgspecError, ValueError, TypeError, OverflowError, struct.error) as error:
            raise _corrupt(self._path, str(error)) from error  # a damaged page may give values of any kind

    def _is_fresh(self) -> bool:
        """Nothing was ever stored. Tables that cannot be seen any more are not the same thing."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return bool(tables == 0 and pages <= 1)

    def _load(self) -> Stored:
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StorageCorrupt(str(verdict))
        row = self._db.execute("SELECT version, sealed FROM head").fetchone()
        if row is None or row[0] != SCHEMA_VERSION:
            raise StorageCorrupt("it has no head row of a version this program knows")
        head = _decode_head(self._sealer.open(row[1], b"head"))
        snapshot = self._load_snapshot()
        entries = self._load_entries(snapshot.index)
        last = entries[-1] if entries else snapshot
        if (last.index, last.term) != (head.last_index, head.last_term):
            raise StorageCorrupt(f"the log ends at {last.index} but was written up to {head.last_index}")
        self._head = head
        return Stored(head.raft_id, head.hard_state, snapshot, entries)

    def _load_snapshot(self) -> Snapshot:
        row = self._db.execute("SELECT sealed FROM snapshot").fetchone()
        return Snapshot() if row is None else _decode_snapshot(self._sealer.open(row[0], b"snapshot"))

    def _load_entries(self, after: int) -> tuple[Entry, ...]:
        rows = self._db.execute("SELECT idx, term, kind, sealed FROM entries WHERE idx > ? ORDER BY idx", (after,))
        entries = []
        for expected, (index, term, kind, sealed) in enumerate(rows, after + 1):
            if index != expected:
                raise StorageCorrupt(f"entry {expected} is missing")
            try:
                data = self._sealer.open(sealed, _place(b"entry", index, term, kind))
            except StorageCorrupt as error:
                raise StorageCorrupt(f"entry {index}: {error}") from None
            entries.append(Entry(index, term, EntryKind(kind), data))
        return tuple(entries)

    def initialise(self, raft_id: int, hard_state: HardState, entries: Sequence[Entry]) -> None:
        """Make the tables and the first rows in one transaction."""
        with _Transaction(self):
            for statement in _SCHEMA.strip().splitlines():
                self._db.execute(statement)
            last = entries[-1] if entries else Snapshot()
            self._write_entries(entries)
            self._write_head(Head(raft_id, hard_state, last.index, last.term))

    def save(self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        """One transaction, one fsync."""
        head = self._present_head()
        end: Entry | Snapshot | None = None
        with _Transaction(self):
            if snapshot is not None:
                self._db.execute("DELETE FROM entries")
                self._write_snapshot(snapshot)
                end = snapshot
            if entries:
                if snapshot is None and entries[0].index <= head.last_index:
                    self._db.execute("DELETE FROM entries WHERE idx >= ?", (entries[0].index,))
                self._write_entries(entries)
                end = entries[-1]
            last = (head.last_index, head.last_term) if end is None else (end.index, end.term)
            self._write_head(Head(head.raft_id, hard_state, *last))

    def save_snapshot(self, snapshot: Snapshot, first_kept: int) -> None:
        """Our own snapshot; the log goes on after it."""
        with _Transaction(self):
            self._write_snapshot(snapshot)
            self._db.execute("DELETE FROM entries WHERE idx < ?", (first_kept,))

    def reseal(self, after: int, limit: int) -> int | None:
        """Seal what an older key sealed with the current one: at first (`after` is zero) also the head and the
        snapshot, then the next entries. Where to go on; None when nothing is left."""
        query = "SELECT idx, term, kind, sealed FROM entries WHERE idx > ? ORDER BY idx LIMIT ?"
        rows = self._db.execute(query, (after, limit)).fetchall()
        with _Transaction(self):
            if not after:
                self._write_head(self._present_head())
                self._reseal_snapshot()
            for index, term, kind, sealed in rows:
                if not self._sealer.is_current(sealed):
                    place = _place(b"entry", index, term, kind)
                    fresh = self._sealer.seal(self._sealer.open(sealed, place), place)
                    self._db.execute("UPDATE entries SET sealed = ? WHERE idx = ?", (fresh, index))
        return rows[-1][0] if len(rows) == limit else None

    def _reseal_snapshot(self) -> None:
        row = self._db.execute("SELECT sealed FROM snapshot").fetchone()
        if row is not None and not self._sealer.is_current(row[0]):
            sealed = self._sealer.seal(self._sealer.open(row[0], b"snapshot"), b"snapshot")
            self._db.execute("UPDATE snapshot SET sealed = ?", (sealed,))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _write_entries(self, entries: Sequence[Entry]) -> None:
        seal = self._sealer.seal
        rows = [(e.index, e.term, e.kind, seal(e.data, _place(b"entry", e.index, e.term, e.kind))) for e in entries]
        self._db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)

    def _write_head(self, head: Head) -> None:
        sealed = self._sealer.seal(_encode(head), b"head")
        self._db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (SCHEMA_VERSION, sealed))
        self._head = head

    def _write_snapshot(self, snapshot: Snapshot) -> None:
        sealed = self._sealer.seal(_encode(snapshot), b"snapshot")
        self._db.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?)", (sealed,))

    def _present_head(self) -> Head:
        assert self._head is not None, "the storage was neither loaded nor initialised"
        return self._head


class _Transaction:
    """Commit, or leave everything as it was because the disk is full, or die: after any other failed write or sync
    nothing more is written by this process."""

    def __init__(self, storage: SqliteStorage) -> None:
        self._storage = storage
        self._head = storage._head

    def __enter__(self) -> None:
        if self._storage._failed:
            raise StorageFailed("an earlier write to the Raft log failed: restart this manager")
        self._run("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._run("COMMIT")
        elif isinstance(error, sqlite3.Error):
            raise self._failure(error) from error
        else:
            self._storage._failed = True

    def _run(self, statement: str) -> None:
        try:
            self._storage._db.execute(statement)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> StorageFailed | StorageFull:
        """SQLITE_FULL comes from a write, never from a sync, so what was synced is as it was."""
        path = self._storage._path
        if _is_full(error) and self._roll_back():
            return StorageFull(f"the disk of the Raft log {path} is full")
        self._storage._failed = True
        return StorageFailed(f"the Raft log {path} cannot be written ({error}): look at its disk")

    def _roll_back(self) -> bool:
        """Whether nothing of it is left. SQLite may have rolled it back by itself."""
        db = self._storage._db
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        self._storage._head = self._head
        return True


def _is_full(error: sqlite3.Error) -> bool:
    return bool(getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL)


def _corrupt(path: Path, reason: str) -> StorageCorrupt:
    return StorageCorrupt(
        f"the Raft log {path} is damaged: {reason}. Restore it from a backup, or remove this manager from "
        "the cluster and let it join anew; the other managers have the state"
    )


def _open(path: Path) -> sqlite3.Connection:
    """Open or create the database; its file is readable by its owner only."""
    path.touch(mode=0o600)
    _examine(path)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        db.close()
        if _is_full(error):
            raise StorageFull(f"the disk of the Raft log {path} is full: free some space there") from error
        if "locked" in str(error):
            raise StorageFailed(f"the Raft log {path} is in use by another process: stop that manager first") from error
        raise _corrupt(path, f"it is not a database ({error})") from error
    try:
        _sync(path)
    except OSError as error:
        db.close()
        raise StorageFailed(f"the Raft log {path} cannot be synced ({error}): look at its disk") from error
    # Only for speed: a disk that has no room for it says so at the first write that needs room.
    with contextlib.suppress(OSError):
        _reserve(_wal(path))
    return db


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _examine(path: Path) -> None:
    """Refuse what SQLite would cut short without a word. It must not even be opened: closing it removes the WAL."""
    try:
        content = _wal(path).read_bytes()
    except FileNotFoundError:
        return
    damage = find_damage(content)
    if damage is not None:
        raise _corrupt(path, damage)


def _sync(path: Path) -> None:
    """What a killed process had written and not yet synced is read as if it were durable: make it so first.

    That is in the WAL alone: SQLite begins it anew only when the database file was synced. The database file itself
    must never be opened beside SQLite: closing it would drop the process's locks on it, as POSIX has it, and let a
    second manager in."""
    for file in (_wal(path), path.parent):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reserve(wal: Path) -> None:
    """Write zeros after the WAL's end, up to where it is begun again: a sync that need not store a new file size takes
    half as long. Zeros are no valid frames (their salt and checksum are wrong), so recovery ends before them."""
    with wal.open("r+b", buffering=0) as file:
        missing = _WAL_BYTES - file.seek(0, os.SEEK_END)
        if missing > 0:
            file.write(bytes(missing))
            os.fsync(file.fileno())
