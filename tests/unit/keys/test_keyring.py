"""The keys at rest: the ring, its file, and a rotation that is interrupted anywhere."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.identity.locks import Locked, LockKey, WrongKey, is_locked
from pyswarm_common.model import Cluster
from pyswarm_manager import at_rest
from pyswarm_manager.at_rest import AtRest
from pyswarm_manager.config import ManagerPaths
from pyswarm_manager.keyring import MAX_KEY_AGE_S, Keyring, KeyringFile
from pyswarm_manager.raft.core.types import Entry, EntryKind, HardState, Snapshot
from pyswarm_manager.raft.storage.port import StorageCorrupt, StorageFull, Stored
from pyswarm_manager.store.changes import ChangeSet, Create
from pyswarm_manager.store.encoding import encode_change_set
from pyswarm_manager.store.store import Store

T = TypeVar("T")
NOW = 1_000_000.0
MASTER = LockKey(bytes(range(32)))


@pytest.fixture
def paths(tmp_path: Path) -> ManagerPaths:
    paths = ManagerPaths(tmp_path / "state", tmp_path / "run")
    paths.directory.mkdir(parents=True)
    return paths


# ---- the ring ----------------------------------------------------------------------------------------------------


def test_a_key_is_due_when_asked_for_or_old() -> None:
    ring = Keyring.new(NOW, epoch=3)
    assert not ring.is_due(NOW + MAX_KEY_AGE_S, 3)
    assert ring.is_due(NOW, 4)
    assert ring.is_due(NOW + MAX_KEY_AGE_S + 1, 3)
    assert not ring.is_due(NOW, 2)


def test_a_rotation_adds_a_key_and_then_drops_the_others() -> None:
    ring = Keyring.new(NOW)
    rotated = ring.rotated(NOW + 1, 5)
    assert [key.id for key in rotated.keys] == [1, 2]
    assert rotated.current.key != ring.current.key
    assert rotated.epoch == 5
    assert rotated.only_current().keys == (rotated.current,)
    assert rotated.only_current().rotated(NOW, 6).current.id == 3, "an id is never used twice"


def test_a_key_shows_in_no_representation() -> None:
    ring = Keyring.new(NOW)
    assert repr(ring.current.key) not in repr(ring)


# ---- its file ----------------------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_and_read_back(tmp_path: Path) -> None:
    file = KeyringFile(tmp_path / "raft-keys")
    assert file.load() is None
    ring = Keyring.new(NOW).rotated(NOW, 1)
    file.save(ring)
    assert file.load() == ring
    assert (tmp_path / "raft-keys").stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = KeyringFile(tmp_path / "raft-keys")
    file.save(Keyring.new(NOW))
    (tmp_path / "raft-keys").chmod(0o640)
    with pytest.raises(StorageCorrupt, match=r"chmod 600.*rotate-encryption-key"):
        file.load()


@given(content=st.binary(max_size=300))
def test_any_other_content_is_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any-keys"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises((StorageCorrupt, Locked)):
        KeyringFile(path).load()


@given(
    version=st.integers(-1, 3),
    ids=st.lists(st.integers(-2, 1 << 33), max_size=4),
    size=st.sampled_from([0, 31, 32, 33]),
)
def test_only_a_ring_of_rising_ids_and_whole_keys_is_one(
    version: int, ids: list[int], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "some-keys"
    path.touch(mode=0o600)
    keys = [{"id": number, "key": bytes(size), "created_at": 0.0} for number in ids]
    path.write_bytes(msgspec.msgpack.encode({"version": version, "epoch": 0, "keys": keys}))
    is_whole = version == 1 and size == 32 and ids and ids == sorted(set(ids)) and ids[0] > 0 and ids[-1] < 1 << 32
    if is_whole:
        assert KeyringFile(path).load() is not None
        return
    with pytest.raises(StorageCorrupt, match="damaged"):
        KeyringFile(path).load()


def test_a_locked_file_needs_its_key(tmp_path: Path) -> None:
    path, ring = tmp_path / "raft-keys", Keyring.new(NOW)
    file = KeyringFile(path)
    file.save(ring)
    file.relock(MASTER)
    assert is_locked(path.read_bytes())
    assert ring.current.key not in path.read_bytes()
    assert KeyringFile(path, MASTER).load() == ring
    with pytest.raises(Locked):
        KeyringFile(path).load()
    with pytest.raises(WrongKey):
        KeyringFile(path, LockKey(bytes(32))).load()
    file.relock(None)
    assert KeyringFile(path).load() == ring


# ---- a rotation --------------------------------------------------------------------------------------------------


def grown(paths: ManagerPaths, master: LockKey | None = None) -> tuple[AtRest, Stored]:
    """A log with a snapshot, and more entries than one batch."""
    opened = AtRest.open(paths, master, NOW)
    storage = opened.storage
    storage.initialise(7, HardState(1, 0, 0), [])
    entries = [Entry(index, 1, EntryKind.NORMAL, b"secret-%d" % index) for index in range(1, 21)]
    storage.save(HardState(1, 7, 20), entries, None)
    storage.save_snapshot(Snapshot(5, 1, data=b"snapshot"), 3)
    stored = storage.load()
    assert stored is not None
    return opened, stored


def key_ids(paths: ManagerPaths) -> set[int]:
    """Of everything that is stored."""
    db = sqlite3.connect(paths.database)
    rows = [row for table in ("head", "snapshot", "entries") for row in db.execute(f"SELECT sealed FROM {table}")]
    db.close()
    return {int.from_bytes(sealed[:4], "big") for (sealed,) in rows}


class Disk:
    """Runs each step, and lets the test look at what a crash after it would leave."""

    def __init__(self, after_step: Callable[[int], None]) -> None:
        self.steps = 0
        self._after_step = after_step

    async def on_disk(self, work: Callable[[], T]) -> T:
        result = work()
        self.steps += 1
        self._after_step(self.steps)
        return result


def store_with(epoch: int) -> Store:
    store = Store(lambda: NOW)
    cluster = Cluster(id="0" * 25, encryption_epoch=epoch)
    store.apply(1, 1, encode_change_set(ChangeSet((Create(cluster),), NOW)))
    return store


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_rest, "RESEAL_BATCH", 4)


async def rotate(opened: AtRest, disk: Disk, epoch: int) -> float:
    return await at_rest._rotate_if_due(opened, disk, store_with(epoch), lambda: NOW)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("master", [None, MASTER], ids=["open", "locked"])
async def test_a_rotation_may_be_interrupted_after_each_step(paths: ManagerPaths, master: LockKey | None) -> None:
    opened, stored = grown(paths, master)
    images: list[ManagerPaths] = []

    def crash(step: int) -> None:
        image = ManagerPaths(paths.root.parent / f"crash{step}", paths.run_dir)
        shutil.copytree(paths.root, image.root)
        (image.directory / "raft-keys.new").write_bytes(b"half a fi")  # a write of the ring that was cut
        images.append(image)

    await rotate(opened, Disk(crash), 1)
    assert len(images) > 5
    opened.storage.close()
    assert key_ids(paths) == {2}
    for image in images:
        after = AtRest.open(image, master, NOW)
        assert after.storage.load() == stored
        await rotate(after, Disk(lambda step: None), 1)
        assert after.storage.load() == stored
        assert not after.has_older_keys
        after.storage.close()
        assert key_ids(image) == {2}
        ring = KeyringFile(image.keyring, master).load()
        assert ring is not None
        assert [key.id for key in ring.keys] == [2]


@pytest.mark.usefixtures("small_batches")
async def test_what_is_saved_during_a_rotation_is_kept_and_has_the_new_key(paths: ManagerPaths) -> None:
    opened, stored = grown(paths)
    added: list[Entry] = []

    def save(step: int) -> None:
        entry = Entry(20 + step, 1, EntryKind.NORMAL, b"during-%d" % step)
        opened.storage.save(HardState(1, 7, 20), [entry], None)
        added.append(entry)
        if step == 3:
            opened.storage.save_snapshot(Snapshot(10, 1, data=b"newer"), 8)

    await rotate(opened, Disk(save), 1)
    opened.storage.close()
    after = AtRest.open(paths, None, NOW)
    found = after.storage.load()
    after.storage.close()
    assert found is not None
    assert found.snapshot.data == b"newer"
    assert found.entries == (*stored.entries[5:], *added)
    assert key_ids(paths) == {2}


@pytest.mark.usefixtures("small_batches")
async def test_a_rotation_waits_for_room(paths: ManagerPaths) -> None:
    opened, stored = grown(paths)
    is_full = True

    def fill(step: int) -> None:
        if is_full and step == 3:
            raise StorageFull("the disk is full")

    assert await rotate(opened, Disk(fill), 1) < 60
    assert opened.has_older_keys
    is_full = False
    assert await rotate(opened, Disk(fill), 1) > 60
    assert not opened.has_older_keys
    assert opened.storage.load() == stored
    opened.storage.close()


async def test_nothing_is_done_when_nothing_is_due(paths: ManagerPaths) -> None:
    opened, _ = grown(paths)
    disk = Disk(lambda step: None)
    await rotate(opened, disk, 0)
    assert disk.steps == 0
    opened.storage.close()


def test_a_log_without_its_keys_is_refused(paths: ManagerPaths) -> None:
    opened, _ = grown(paths)
    opened.storage.close()
    paths.keyring.unlink()
    with pytest.raises(StorageCorrupt, match="raft-keys is missing"):
        AtRest.open(paths, None, NOW)
    assert not paths.keyring.exists(), "a new key would hide what is wrong"


def test_another_managers_keys_open_nothing(paths: ManagerPaths) -> None:
    opened, _ = grown(paths)
    opened.storage.close()
    KeyringFile(paths.keyring).save(Keyring.new(NOW))
    other = AtRest.open(paths, None, NOW)
    with pytest.raises(StorageCorrupt, match="another key"):
        other.storage.load()
    other.storage.close()


def test_keys_that_were_set_aside_are_locked_too(paths: ManagerPaths) -> None:
    opened, _ = grown(paths)
    aside = paths.directory / "damaged-20260101T000000-ab" / "raft-keys"
    aside.parent.mkdir()
    shutil.copy2(paths.keyring, aside)
    rubbish = paths.directory / "damaged-20260102T000000-cd" / "raft-keys"
    rubbish.parent.mkdir()
    rubbish.write_bytes(b"rubbish")
    rubbish.chmod(0o600)
    for _ in range(2):  # done again at each start
        opened.relock(MASTER)
        assert is_locked(paths.keyring.read_bytes())
        assert is_locked(aside.read_bytes())
    assert rubbish.read_bytes() == b"rubbish"
    opened.relock(None)
    assert not is_locked(paths.keyring.read_bytes())
    assert not is_locked(aside.read_bytes())
    opened.storage.close()
