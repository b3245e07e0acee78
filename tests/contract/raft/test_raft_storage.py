"""One suite for every RaftStorage: what a member wrote is what it finds, whatever was written before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyswarm_manager.raft.core.types import Configuration, Entry, EntryKind, HardState, Member, MemberRole, Snapshot
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_manager.raft.storage.port import RaftStorage, Stored
from pyswarm_manager.raft.storage.sealer import AesGcmSealer
from pyswarm_manager.raft.storage.sqlite import SqliteStorage

KEY = bytes(range(32))
Reopen = Callable[[RaftStorage | None], RaftStorage]


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Opens the disk; given an open storage, closes it first, as a restart does."""
    disk = MemoryStorage()

    def open_again(old: RaftStorage | None) -> RaftStorage:
        if old is not None:
            old.close()
        return disk if request.param == "memory" else SqliteStorage(tmp_path / "raft.db", AesGcmSealer(KEY))

    return open_again


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    return Entry(index, term, EntryKind.NORMAL, data)


def entries(first: int, last: int, term: int) -> list[Entry]:
    return [entry(index, term, b"%d" % index) for index in range(first, last + 1)]


CONFIGURATION = Configuration({7: Member("host7", MemberRole.VOTER), 8: Member("host8", MemberRole.LEARNER)}, (3,))


def test_a_fresh_disk_holds_nothing(reopen: Reopen) -> None:
    assert reopen(None).load() is None


def test_what_was_initialised_is_found(reopen: Reopen) -> None:
    storage = reopen(None)
    storage.initialise(7, HardState(1, 0, 2), entries(1, 2, 1))
    stored = reopen(storage).load()
    assert stored == Stored(7, HardState(1, 0, 2), Snapshot(), tuple(entries(1, 2, 1)))


def test_entries_are_appended(reopen: Reopen) -> None:
    storage = reopen(None)
    storage.initialise(7, HardState(), [])
    storage.save(HardState(2, 7, 0), entries(1, 3, 2), None)
    storage.save(HardState(2, 7, 3), entries(4, 4, 2), None)
    stored = reopen(storage).load()
    assert stored is not None
    assert stored.hard_state == HardState(2, 7, 3)
    assert stored.entries == tuple(entries(1, 4, 2))


def test_entries_replace_what_followed_their_place(reopen: Reopen) -> None:
    storage = reopen(None)
    storage.initialise(7, HardState(), [])
    storage.save(HardState(2, 0, 0), entries(1, 5, 2), None)
    storage.save(HardState(3, 0, 0), [entry(3, 3, b"other")], None)
    stored = reopen(storage).load()
    assert stored is not None
    assert stored.entries == (*entries(1, 2, 2), entry(3, 3, b"other"))


def test_a_vote_alone_is_kept(reopen: Reopen) -> None:
    storage = reopen(None)
    storage.initialise(7, HardState(1, 0, 0), [])
    storage.save(HardState(5, 3, 0), [], None)
    stored = reopen(storage).load()
    assert stored is not None
    assert stored.hard_state == HardState(5, 3, 0)


def test_a_received_snapshot_replaces_the_log(reopen: Reopen) -> None:
    storage = reopen(None)
    storage.initialise(7, HardState(), [])
    storage.save(HardState(2, 0, 0), entries(1, 5, 2), None)
    snapshot = Snapshot(9, 4, CONFIGURATION, b"state")
    storage.save(HardState(4, 0, 9), entries(10, 11, 4), snapshot)
    stored = reopen(storage).load()
    assert stored == Stored(7, HardState(4, 0, 9), snapshot, tuple(entries(10, 11, 4)))


def test_an_own_snapshot_shortens_the_log(reopen: Reopen) -> None:
    storage = reopen(None)
    storage.initialise(7, HardState(), [])
    storage.save(HardState(2, 0, 0), entries(1, 9, 2), None)
    snapshot = Snapshot(6, 2, CONFIGURATION, b"state")
    storage.save_snapshot(snapshot, 4)
    storage.save(HardState(2, 0, 9), entries(10, 10, 2), None)
    stored = reopen(storage).load()
    assert stored is not None
    assert stored.snapshot == snapshot
    assert stored.entries == tuple(entries(7, 10, 2))


def test_a_snapshot_of_the_whole_log_leaves_none(reopen: Reopen) -> None:
    storage = reopen(None)
    storage.initialise(7, HardState(), [])
    storage.save(HardState(2, 0, 3), entries(1, 3, 2), None)
    storage.save_snapshot(Snapshot(3, 2, CONFIGURATION, b""), 1)
    stored = reopen(storage).load()
    assert stored is not None
    assert stored.entries == ()


@pytest.mark.parametrize("size", [0, 1, 1_500_000])
def test_entries_of_any_size(reopen: Reopen, size: int) -> None:
    storage = reopen(None)
    storage.initialise(7, HardState(), [])
    storage.save(HardState(1, 0, 0), [entry(1, 1, b"z" * size)], None)
    stored = reopen(storage).load()
    assert stored is not None
    assert stored.entries == (entry(1, 1, b"z" * size),)
