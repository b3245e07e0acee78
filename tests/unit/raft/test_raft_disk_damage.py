"""What a crash or a bad disk leaves: a torn end is dropped, damage refused, and nothing acknowledged forgotten."""

from __future__ import annotations

import random
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pyswarm_manager.raft.core.types import Entry, EntryKind, HardState, Snapshot
from pyswarm_manager.raft.storage import sqlite
from pyswarm_manager.raft.storage.port import StorageCorrupt, Stored
from pyswarm_manager.raft.storage.sealer import AesGcmSealer
from pyswarm_manager.raft.storage.sqlite import SqliteStorage
from pyswarm_manager.raft.storage.wal import find_damage

KEY = bytes(range(32))
SECTOR = 512
HEADER = 32
FRAME = 24 + 4096
PAGES = 60
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Hundreds of examples: syncs would take most of the time, and nobody cuts the power here."""


@dataclass(repr=False)
class Image:
    """The two files of a log in use, before and after its last save, and what is stored in each."""

    db: bytes
    wal_before: bytes
    wal: bytes
    before: Stored
    after: Stored

    def __post_init__(self) -> None:
        """Where the last save is in the WAL. Its header, should it be new, was synced before."""
        self.wal_before = self.wal[:HEADER] + self.wal_before[HEADER:]
        pairs = zip(self.wal, self.wal_before.ljust(len(self.wal), b"\0"), strict=True)
        changed = [at for at, (new, old) in enumerate(pairs) if new != old]
        self.last = range(changed[0], changed[-1] + 1)


def opened(directory: Path) -> SqliteStorage:
    return SqliteStorage(directory / "raft.db", AesGcmSealer(KEY))


def load(directory: Path) -> Stored:
    storage = opened(directory)
    try:
        stored = storage.load()
    finally:
        storage.close()
    assert stored is not None
    return stored


def entry(index: int, size: int) -> Entry:
    return Entry(index, 1, EntryKind.NORMAL, random.Random(index).randbytes(size))


def grown(directory: Path, saves: int, last_size: int, *, restarts_wal: bool) -> Image:
    """A log with a snapshot and `saves` saves; then the last one."""
    live = directory / "live"
    live.mkdir()
    storage = opened(live)
    storage.initialise(7, HardState(1, 0, 0), [])
    for index in range(1, saves + 1):
        storage.save(HardState(1, 7, index), [entry(index, 200 + index % 7 * 500)], None)
        if index == saves // 2:
            storage.save_snapshot(Snapshot(index, 1, data=b"snapshot" * 4000), index - 3)
    if restarts_wal:  # what is longer than the WAL may be: the next save begins it anew, over old frames
        storage.save(HardState(1, 7, saves), [entry(saves + 1, PAGES * 4096)], None)
        saves += 1
    before = copy_and_load(live, directory / "before")
    wal_before = (live / "raft.db-wal").read_bytes()
    storage.save(HardState(2, 9, saves), [entry(saves + 1, last_size)], None)
    after = copy_and_load(live, directory / "after")
    image = Image((live / "raft.db").read_bytes(), wal_before, (live / "raft.db-wal").read_bytes(), before, after)
    storage.close()
    return image


def copy_and_load(live: Path, copy: Path) -> Stored:
    shutil.copytree(live, copy)
    return load(copy)


@pytest.fixture(scope="module", autouse=True)
def short_wal() -> Iterator[None]:
    """Begun anew after a few pages, so that a test sees it without writing megabytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "CHECKPOINT_PAGES", PAGES)
        patch.setattr(sqlite, "_WAL_BYTES", HEADER + PAGES * FRAME)
        yield


@pytest.fixture(scope="module", params=["short", "long", "begun anew"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("image")
    size = 20_000 if request.param == "long" else 300
    return grown(directory, 12, size, restarts_wal=request.param == "begun anew")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where an image is laid out, again and again."""
    directory = tmp_path / "image"
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def lay_out(place: Path, db: bytes, wal: bytes) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "raft.db").write_bytes(db)
    (place / "raft.db-wal").write_bytes(wal)
    return place


def torn(image: Image, data: st.DataObject) -> bytes:
    """The WAL as a power cut in the middle of the last save may leave it."""
    span = image.last
    kind = data.draw(st.sampled_from(["cut short", "old behind", "old sectors"]))
    at = data.draw(st.integers(span.start, span.stop - 1))
    if kind == "cut short":
        return image.wal[:at]
    if kind == "old behind":
        return image.wal[:at] + image.wal_before[at:]
    sectors = range(span.start // SECTOR, (span.stop - 1) // SECTOR + 1)
    old = data.draw(st.sets(st.sampled_from(sectors), min_size=1))
    content = bytearray(image.wal)
    for sector in old:
        content[sector * SECTOR : (sector + 1) * SECTOR] = image.wal_before[sector * SECTOR : (sector + 1) * SECTOR]
    return bytes(content)


def different_bits(one: bytes, other: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, other.ljust(len(one), b"\0"), strict=True))


@settings(max_examples=60)
@given(data=st.data())
def test_a_torn_last_save_is_dropped_and_all_before_it_are_there(image: Image, data: st.DataObject) -> None:
    wal = torn(image, data)
    # Torn where old and new bytes agree but for one bit, it is a flipped bit to every reader: those are refused.
    assume(different_bits(image.wal, wal) != 1)
    scratch = Path(tempfile.mkdtemp(prefix="raft-damage-", dir=MEMORY))
    try:
        directory = lay_out(scratch / "x", image.db, wal)
        assert load(directory) in (image.before, image.after)
        storage = opened(directory)  # the member goes on, and is not confused by what is left behind
        stored = storage.load()
        assert stored is not None
        last = (stored.entries[-1] if stored.entries else stored.snapshot).index
        storage.save(HardState(3, 7, last), [Entry(last + 1, 3, EntryKind.NORMAL, b"goes on")], None)
        crashed = shutil.copytree(directory, scratch / "y")
        storage.close()
        assert load(crashed).entries[-1].data == b"goes on"
    finally:
        shutil.rmtree(scratch)


def test_a_save_cut_at_every_sector_is_dropped(image: Image, place: Path) -> None:
    span = image.last
    for at in {*range(span.start, span.stop, SECTOR), span.start + 1, span.stop - 1}:
        assert load(lay_out(place, image.db, image.wal[:at])) == image.before
    assert load(lay_out(place, image.db, image.wal)) == image.after


def whole_or_refused(directory: Path) -> Stored | None:
    """What is found, or None for a refusal."""
    try:
        return load(directory)
    except StorageCorrupt:
        return None


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@settings(max_examples=100)
@given(data=st.data())
def test_a_flipped_bit_in_the_wal_is_refused_or_does_no_harm(image: Image, data: st.DataObject) -> None:
    """Never an older state: not even when the bit is in the very last save."""
    end = image.last.stop
    where = data.draw(st.sampled_from([range(end), image.last, range(32)]))
    bit = data.draw(st.integers(where.start * 8, where.stop * 8 - 1))
    scratch = Path(tempfile.mkdtemp(prefix="raft-damage-", dir=MEMORY))
    try:
        directory = lay_out(scratch / "x", image.db, flipped(image.wal, bit))
        assert whole_or_refused(directory) in (image.after, None)
    finally:
        shutil.rmtree(scratch)


@settings(max_examples=100)
@given(data=st.data())
@example(data=None)
def test_a_flipped_bit_in_the_database_is_refused_or_does_no_harm(image: Image, data: st.DataObject | None) -> None:
    """Whether the WAL is there (the pages in it count) or was copied back when the log was closed."""
    scratch = Path(tempfile.mkdtemp(prefix="raft-damage-", dir=MEMORY))
    try:
        directory = lay_out(scratch / "x", image.db, image.wal)
        assert load(directory) == image.after  # closed: everything is in the database now
        whole = (directory / "raft.db").read_bytes()
        if data is None:
            return
        first_pages = range(4 * 4096 * 8)
        where = data.draw(st.sampled_from([range(len(whole) * 8), first_pages, range(100 * 8)]))
        bit = data.draw(st.integers(where.start, min(where.stop, len(whole) * 8) - 1))
        (directory / "raft.db").write_bytes(flipped(whole, bit))
        assert whole_or_refused(directory) in (image.after, None)
    finally:
        shutil.rmtree(scratch)


@settings(max_examples=60)
@given(data=st.data())
def test_larger_damage_before_the_last_save_is_refused(image: Image, data: st.DataObject) -> None:
    """Half a sector of rubbish: SQLite would end there without a word, and forget the saves behind it."""
    end = image.last.start - 2 * FRAME
    if end < 64:
        return  # the last save is the first one of this WAL
    at = data.draw(st.integers(32 + 24, end))
    rubbish = data.draw(st.binary(min_size=256, max_size=256))
    wal = image.wal[:at] + rubbish + image.wal[at + 256 :]
    if (at - 32) % FRAME <= 24 or (at - 32) % FRAME > FRAME - 256:
        return  # a frame's header too: it may not even look like one
    if wal != image.wal:
        assert find_damage(wal) is not None


@given(st.binary(max_size=20_000))
def test_any_bytes_are_examined_without_failing(content: bytes) -> None:
    find_damage(content)


@given(st.binary(max_size=9_000), st.sampled_from([512, 4096]), st.integers(0, 1))
def test_any_frames_behind_a_header_are_examined_without_failing(content: bytes, page_bytes: int, big: int) -> None:
    find_damage(struct.pack(">8I", 0x377F0682 | big, 3007000, page_bytes, 0, 1, 2, 3, 4) + content)


def test_damage_is_not_opened_so_that_it_is_still_there_next_time(image: Image, place: Path) -> None:
    """SQLite would copy the WAL back and remove it when it is closed, and with it what tells of the damage."""
    directory = lay_out(place, image.db, flipped(image.wal, (image.last.start + 40) * 8))
    for _ in range(2):
        with pytest.raises(StorageCorrupt, match="write-ahead log"):
            opened(directory)
    assert (directory / "raft.db-wal").exists()
