"""What only a real disk does: secrets, damage, locks and failing writes."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pyswarm_manager.raft.core.types import Entry, EntryKind, HardState
from pyswarm_manager.raft.storage.port import StorageCorrupt, StorageFailed, StorageFull
from pyswarm_manager.raft.storage.sealer import AesGcmSealer
from pyswarm_manager.raft.storage.sqlite import SqliteStorage

KEY = bytes(range(32))


def open_storage(path: Path, key: bytes = KEY) -> SqliteStorage:
    return SqliteStorage(path, AesGcmSealer(key))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed log of three entries."""
    path = tmp_path / "raft.db"
    storage = open_storage(path)
    storage.initialise(7, HardState(1, 0, 0), [])
    storage.save(HardState(2, 7, 1), [Entry(i, 2, EntryKind.NORMAL, b"password-%d" % i) for i in (1, 2, 3)], None)
    storage.close()
    return path


def damage(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE entries SET sealed = zeroblob(80) WHERE idx = 2", "entry 2: a stored blob was changed"),
        ("UPDATE entries SET term = 1 WHERE idx = 2", "entry 2: a stored blob was changed"),
        ("DELETE FROM entries WHERE idx = 2", "entry 2 is missing"),
        ("DELETE FROM entries WHERE idx = 3", "the log ends at 2 but was written up to 3"),
        ("UPDATE entries SET sealed = (SELECT sealed FROM entries WHERE idx = 1) WHERE idx = 3", "entry 3: "),
        ("UPDATE head SET sealed = zeroblob(60)", "a stored blob was changed"),
        ("UPDATE head SET version = 99", "version"),
        ("DELETE FROM head", "no head row"),
    ],
)
def test_damage_is_found_and_explained(path: Path, statement: str, reason: str) -> None:
    damage(path, statement)
    storage = open_storage(path)
    with pytest.raises(StorageCorrupt, match=f"{reason}.*let it join anew"):
        storage.load()
    storage.close()


def test_another_key_is_refused(path: Path) -> None:
    storage = open_storage(path, bytes(32))
    with pytest.raises(StorageCorrupt, match="another key"):
        storage.load()
    storage.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageCorrupt, match="not a database"):
        open_storage(path)


def test_overwritten_pages_are_found(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StorageCorrupt):
        open_storage(path).load()


SECOND_PROCESS = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""


def said_by_a_second_process(path: Path) -> str:
    command = [sys.executable, "-c", SECOND_PROCESS, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_a_second_process_is_refused(path: Path) -> None:
    """By a lock of the kernel, which must outlive everything that is done with the files here."""
    first = open_storage(path)
    assert said_by_a_second_process(path) == "database is locked"
    first.load()
    first.save(HardState(3, 7, 1), [], None)
    assert said_by_a_second_process(path) == "database is locked"
    with pytest.raises(StorageFailed, match="in use by another process"):
        open_storage(path)
    first.close()
    assert said_by_a_second_process(path) == ""
    open_storage(path).close()


def test_nothing_readable_is_on_the_disk_and_only_the_owner_may_read(path: Path) -> None:
    files = list(path.parent.glob("raft.db*"))
    assert b"password" not in b"".join(file.read_bytes() for file in files)
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_a_write_without_room_leaves_nothing_behind_and_is_made_again(path: Path) -> None:
    storage = open_storage(path)
    before = storage.load()
    storage._db.execute("PRAGMA max_page_count = 1")  # a full disk
    big = [Entry(4, 2, EntryKind.NORMAL, b"x" * 1_000_000)]
    for _ in range(3):
        with pytest.raises(StorageFull, match="is full"):
            storage.save(HardState(3, 7, 1), big, None)
        assert storage.load() == before
    storage._db.execute("PRAGMA max_page_count = 1000000")
    storage.save(HardState(3, 7, 1), big, None)
    storage.save(HardState(3, 7, 4), [], None)
    storage.close()
    again = open_storage(path)
    stored = again.load()
    assert stored is not None
    assert [entry.index for entry in stored.entries] == [1, 2, 3, 4]
    assert stored.hard_state == HardState(3, 7, 4)
    again.close()


def test_after_a_failed_write_nothing_is_written_any_more(path: Path) -> None:
    storage = open_storage(path)
    storage.load()
    storage._db.execute("PRAGMA query_only = ON")  # a disk that takes nothing, and not for want of room
    with pytest.raises(StorageFailed, match="cannot be written"):
        storage.save(HardState(2, 7, 1), [Entry(4, 2, EntryKind.NORMAL, b"x")], None)
    storage._db.execute("PRAGMA query_only = OFF")
    with pytest.raises(StorageFailed, match="restart this manager"):
        storage.save(HardState(3, 0, 1), [], None)
    storage.close()
    again = open_storage(path)
    stored = again.load()
    assert stored is not None
    assert len(stored.entries) == 3
    again.close()


def test_tables_that_are_gone_are_not_a_fresh_disk(path: Path) -> None:
    """A member that took this for its first start would vote again in terms in which it has voted."""
    damage(path, "ALTER TABLE head RENAME TO heae")
    storage = open_storage(path)
    with pytest.raises(StorageCorrupt, match="let it join anew"):
        storage.load()
    storage.close()


def test_a_missing_file_beside_a_whole_one_is_fresh(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "raft.db")
    assert storage.load() is None
    storage.close()
    again = open_storage(tmp_path / "raft.db")
    assert again.load() is None
    again.close()


def test_what_was_saved_survives_a_crash_behind_the_room_reserved_in_the_wal(tmp_path: Path) -> None:
    """The files as a crash leaves them, copied while they are in use, before and after the WAL was begun again."""
    (tmp_path / "live").mkdir()
    live = open_storage(tmp_path / "live" / "raft.db")
    live.initialise(7, HardState(1, 0, 0), [])
    wal = tmp_path / "live" / "raft.db-wal"
    reserved = wal.stat().st_size
    for index in range(1, 26):
        live.save(HardState(1, 7, index), [Entry(index, 1, EntryKind.NORMAL, bytes(1_000_000))], None)
        if index in (1, 7, 25):
            image = shutil.copytree(tmp_path / "live", tmp_path / f"crash{index}")
            for _ in range(2):  # recovered from the WAL, then from what recovery left
                crashed = open_storage(image / "raft.db")
                stored = crashed.load()
                assert stored is not None
                assert (len(stored.entries), stored.hard_state.commit) == (index, index)
                crashed.close()
    assert reserved > 8_000_000
    assert wal.stat().st_size < 2 * reserved, "the WAL was never begun again"
    live.close()


class SyncedFiles:
    """What a power cut would leave: each file as it was when it was last synced by its name here. Syncs that SQLite
    makes by itself are not seen, so this is the least that is left."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fsync = os.fsync
        self._contents = {file.name: file.read_bytes() for file in directory.iterdir()}

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        if file.parent == self._directory:
            self._contents[file.name] = file.read_bytes()

    def cut_power(self, into: Path) -> Path:
        into.mkdir()
        for name, content in self._contents.items():
            (into / name).write_bytes(content)
        return into / "raft.db"


def test_what_a_killed_process_had_not_synced_is_synced_before_it_is_counted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "live"
    live.mkdir()
    killed = open_storage(live / "raft.db")
    killed.initialise(7, HardState(1, 0, 0), [])
    synced = SyncedFiles(live)
    killed._db.execute("PRAGMA synchronous = OFF")  # its last write is in the page cache, and the sync never comes
    killed.save(HardState(2, 9, 0), [Entry(1, 2, EntryKind.NORMAL, b"x")], None)
    assert stored_in(synced.cut_power(tmp_path / "without a successor")) == (HardState(1, 0, 0), 0)
    synced._directory = Path(shutil.copytree(live, tmp_path / "taken up"))  # the dead process's locks are free
    killed.close()

    monkeypatch.setattr(os, "fsync", synced.fsync)
    successor = open_storage(tmp_path / "taken up" / "raft.db")
    found = successor.load()
    assert found is not None
    after_power_cut = synced.cut_power(tmp_path / "without power")
    successor.close()
    assert stored_in(after_power_cut) == (found.hard_state, len(found.entries)) == (HardState(2, 9, 0), 1)


def stored_in(path: Path) -> tuple[HardState, int]:
    storage = open_storage(path)
    stored = storage.load()
    storage.close()
    assert stored is not None
    return stored.hard_state, len(stored.entries)


def test_a_log_that_cannot_be_synced_is_not_counted_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageFailed, match=r"cannot be synced.*look at its disk"):
            open_storage(path)
    open_storage(path).close()  # and no lock is left
