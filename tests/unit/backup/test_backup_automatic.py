"""Automatic backups: when they are due, which are kept, and what is said when one cannot be made."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from backup_state import CLUSTER, CLUSTER_ID, NOW, tables
from msgspec.structs import replace

from pyswarm_common.errors import Unavailable
from pyswarm_common.model import Cluster
from pyswarm_manager.backup.automatic import AutomaticBackups, due_at
from pyswarm_manager.backup.contents import capture
from pyswarm_manager.backup.directory import listed, name_of, newest_of, prune
from pyswarm_manager.backup.making import MAX_AT_ONCE, Maker, SealedWith
from pyswarm_manager.store.changes import Change, Event
from pyswarm_manager.store.tables import Tables

HOUR = 3600.0


class FakeStore:
    """Tables, and callbacks that a test can make."""

    def __init__(self, cluster: Cluster = CLUSTER) -> None:
        self.view = tables()
        self.view.put(cluster)
        self.callbacks: list[Callable[[int, tuple[Event, ...]], None]] = []

    async def propose(self, changes: list[Change]) -> int:
        raise AssertionError("a backup writes nothing")

    def subscribe(self, callback: Callable[[int, tuple[Event, ...]], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def set_spec(self, **fields: object) -> None:
        old = self.view.cluster
        assert old is not None
        new = replace(old, spec=replace(old.spec, **fields))
        self.view.put(new)
        for callback in tuple(self.callbacks):
            callback(1, (Event(old, new),))


class FakeRaft:
    """A member that can be without a leader."""

    applied_index, term = 77, 3

    def __init__(self) -> None:
        self.has_leader = True

    async def read_barrier(self) -> int:
        if not self.has_leader:
            raise Unavailable("no majority of the managers answers")
        return self.applied_index


class Setup:
    def __init__(self, directory: Path, settle_s: float = 0.0) -> None:
        self.store, self.raft = FakeStore(), FakeRaft()
        self.maker = Maker(self.store, self.raft, time.time)  # type: ignore[arg-type]
        self.automatic = AutomaticBackups(self.store, self.maker, directory, time.time, settle_s)  # type: ignore[arg-type]
        self.directory = directory

    def files(self) -> list[Path]:
        return sorted(self.directory.glob("*")) if self.directory.exists() else []


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path / "backups")


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        (0.0, NOW + 60.0),  # there is none: when the manager has settled
        (NOW - HOUR / 2, NOW + HOUR / 2),
        (NOW - 2 * HOUR, NOW + 60.0),  # missed
        (NOW + 9 * HOUR, NOW + HOUR),  # the clock was set back
    ],
    ids=["none", "recent", "missed", "from the future"],
)
def test_when_the_next_is_due(newest: float, expected: float) -> None:
    assert due_at(newest, HOUR, now=NOW, earliest=NOW + 60.0) == expected


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a status has no event
            await asyncio.sleep(0.01)


async def test_the_first_is_made_when_the_manager_has_settled_for_its_owner_only(setup: Setup) -> None:
    running = asyncio.ensure_future(setup.automatic.run())
    await until(lambda: setup.automatic.status.next_at > time.time() + HOUR)
    running.cancel()
    (made,) = await setup.automatic.list()
    assert made.header is not None
    assert (made.header.cluster_id, made.header.index) == (CLUSTER_ID, 77)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(setup.directory.stat().st_mode) == 0o700
    assert setup.files() == [made.path]


async def test_none_are_made_while_they_are_off_and_turning_them_on_is_noticed(setup: Setup) -> None:
    setup.store.set_spec(backup_interval_s=0.0)
    running = asyncio.ensure_future(setup.automatic.run())
    await until(lambda: bool(setup.store.callbacks))
    assert not setup.files()
    setup.store.set_spec(backup_interval_s=HOUR)
    await until(lambda: bool(setup.files()) and setup.automatic.status.next_at > time.time())
    running.cancel()


async def test_a_failure_is_kept_in_sight_and_nothing_half_made_stays(setup: Setup) -> None:
    setup.raft.has_leader = False
    running = asyncio.ensure_future(setup.automatic.run())
    await until(lambda: "no majority" in setup.automatic.status.error)
    assert not setup.files()
    assert not running.done()
    running.cancel()


async def test_a_disk_that_refuses_is_a_failure_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    setup = Setup(tmp_path / "file" / "backups")
    running = asyncio.ensure_future(setup.automatic.run())
    await until(lambda: bool(setup.automatic.status.error))
    assert not running.done()
    running.cancel()


async def made_at(setup: Setup, when: float, cluster: Cluster = CLUSTER) -> Path:
    maker = Maker(setup.store, setup.raft, lambda: when)  # type: ignore[arg-type]
    setup.directory.mkdir(exist_ok=True)
    path = setup.directory / name_of(cluster.id, 77, when)
    await maker.write_file(capture(setup.store.view, cluster, 77, 3), SealedWith(b"k" * 32), path)
    return path


async def test_the_newest_stay_and_another_clusters_are_not_touched(setup: Setup) -> None:
    other = replace(CLUSTER, id="d" * 25)
    old_of_other = await made_at(setup, 500.0, other)
    own = [await made_at(setup, 1_000.0 + hour * HOUR) for hour in range(7)]
    by_hand = setup.directory / "mine.pyswarm-backup"
    by_hand.write_bytes(own[0].read_bytes())
    (setup.directory / ".auto-crashed.part").touch()
    assert prune(setup.directory, CLUSTER_ID, keep=3) == 4
    assert set(setup.files()) == {old_of_other, by_hand, *own[-3:]}
    assert [kept.made_at for kept in listed(setup.directory)][:3] == [1_000.0 + h * HOUR for h in (6, 5, 4)]


async def test_a_damaged_one_is_listed_with_the_reason_and_does_not_count(setup: Setup) -> None:
    path = await made_at(setup, 1_000.0)
    path.write_bytes(path.read_bytes()[:20])
    (kept,) = listed(setup.directory)
    assert "damaged" in kept.error
    assert newest_of([kept], CLUSTER_ID) == 0.0


async def test_no_more_than_a_few_are_made_at_once(setup: Setup) -> None:
    captured = await setup.maker.capture()
    streams = [setup.maker.parts(captured, SealedWith(b"k" * 32)) for _ in range(MAX_AT_ONCE + 1)]
    for stream in streams[:-1]:
        await anext(stream)
    with pytest.raises(Exception, match="other backups are being made"):
        await anext(streams[-1])
    await setup.maker.write_file(captured, SealedWith(b"k" * 32), setup.directory.with_name("own"))
    await streams[0].aclose()
    await anext(setup.maker.parts(captured, SealedWith(b"k" * 32)))


async def test_without_a_swarm_there_is_nothing_to_back_up(setup: Setup) -> None:
    setup.store.view = Tables()
    with pytest.raises(Unavailable):
        await setup.maker.capture()
