"""Members whose disk fills up: read-only, never lost, and back by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
from raft_cluster import TestCluster, TestMember

from pyswarm_common.errors import Unavailable, Unknown
from pyswarm_manager.raft.core.types import Entry, HardState, Snapshot
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_manager.raft.storage.port import StorageFailed, StorageFull

pytestmark = pytest.mark.timeout(60)


class LimitedDisk(MemoryStorage):
    """A disk that somebody fills and empties."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = threading.Event()
        self.refused = 0

    def save(self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        self._check()
        super().save(hard_state, entries, snapshot)

    def save_snapshot(self, snapshot: Snapshot, first_kept: int) -> None:
        self._check()
        super().save_snapshot(snapshot, first_kept)

    def _check(self) -> None:
        if self.is_full.is_set():
            self.refused += 1
            raise StorageFull("the disk of the test is full")


class Cluster(TestCluster):
    """Every member has such a disk."""

    def disk(self, raft_id: int) -> LimitedDisk:
        storage = self.members[raft_id].storage
        assert isinstance(storage, LimitedDisk)
        return storage

    def node(self, raft_id: int) -> RaftNode:
        return self.members[raft_id].node

    async def write(self, data: bytes) -> bool:
        """Whether it was acknowledged by whoever leads."""
        try:
            await asyncio.wait_for((await self.leader()).propose(data), 2.0)
        except (Unavailable, Unknown, TimeoutError):
            return False
        return True


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster() as cluster:
        for raft_id in (1, 2, 3):
            member = TestMember(raft_id)
            member.storage = LimitedDisk()
            cluster.members[raft_id] = member
        await cluster.start(1, {})
        await cluster.leader()
        for raft_id in (2, 3):
            await cluster.start(raft_id)
            await cluster.node(1).add_member(raft_id, cluster.members[raft_id].address)
        await cluster.until(lambda: all(len(cluster.node(i)._loop.core.state.voters) == 3 for i in (1, 2, 3)))
        yield cluster


async def refusal(cluster: Cluster) -> None:
    """Write until that is refused, and not only unknown."""
    while True:
        with contextlib.suppress(Unknown):
            await (await cluster.leader()).propose(b"in vain")


async def until_equal(cluster: Cluster, count: int) -> None:
    await cluster.until(lambda: all(len(cluster.journal(i)) == count for i in (1, 2, 3)))
    assert cluster.journal(1) == cluster.journal(2) == cluster.journal(3)


async def test_a_follower_with_a_full_disk_acknowledges_nothing_and_catches_up(cluster: Cluster) -> None:
    disk, node = cluster.disk(2), cluster.node(2)
    disk.is_full.set()
    written = [b"%d" % i for i in range(20)]
    assert all([await cluster.write(data) for data in written])
    await cluster.until(lambda: node.is_read_only)
    assert "the disk of the test is full" in node.disk_problem
    durable = disk.durable()
    assert durable is not None
    assert not any(entry.data in written for entry in durable.entries)
    leader = await cluster.leader()
    await cluster.until(lambda: leader.members[2].disk_is_full)
    assert leader.members[2].is_active
    assert leader.members[2].match_index < leader.commit_index
    disk.is_full.clear()
    await until_equal(cluster, 20)
    assert not node.is_read_only
    assert node.disk_problem == ""
    assert disk.refused >= 1


async def test_a_leader_with_a_full_disk_hands_over(cluster: Cluster) -> None:
    leader = await cluster.leader()
    cluster.disk(leader.raft_id).is_full.set()
    assert await cluster.write(b"begun") in (True, False)
    await cluster.until(lambda: any(cluster.node(i).is_leader for i in (1, 2, 3) if i != leader.raft_id))
    assert await cluster.write(b"by the next leader")
    assert not leader.is_leader
    before = cluster.journal((await cluster.leader()).raft_id)
    cluster.disk(leader.raft_id).is_full.clear()
    await until_equal(cluster, len(before))
    assert b"by the next leader" in before


async def test_when_all_disks_are_full_writes_are_refused_by_name_and_reads_go_on(cluster: Cluster) -> None:
    assert await cluster.write(b"before")
    await until_equal(cluster, 1)
    for i in (1, 2, 3):
        cluster.disk(i).is_full.set()
    await cluster.write(b"in between")
    leader = await cluster.leader()
    with pytest.raises(Unavailable, match=r"(disk of the test is|disks of most managers are) full.*free some space"):
        await refusal(cluster)
    for i in (1, 2, 3):
        assert b"before" in cluster.journal(i)
    assert await leader.read_barrier() > 0
    follower = next(cluster.node(i) for i in (1, 2, 3) if not cluster.node(i).is_leader)
    assert await follower.read_barrier() > 0
    for i in (1, 2, 3):
        cluster.disk(i).is_full.clear()
    await cluster.until(lambda: not any(cluster.node(i).is_read_only for i in (1, 2, 3)))
    while not await cluster.write(b"after"):
        pass
    assert b"after" in cluster.journal((await cluster.leader()).raft_id)


async def test_a_leader_whose_followers_are_full_names_them(cluster: Cluster) -> None:
    leader = await cluster.leader()
    others = [i for i in (1, 2, 3) if i != leader.raft_id]
    for i in others:
        cluster.disk(i).is_full.set()
    waiting = asyncio.ensure_future(leader.propose(b"waits"))
    with pytest.raises((Unknown, Unavailable)):
        await waiting
    with pytest.raises(Unavailable, match="disks of most managers are full: free some space at host"):
        await leader.propose(b"in vain")
    assert leader.is_leader
    assert await leader.read_barrier() > 0
    cluster.disk(others[0]).is_full.clear()
    while not await cluster.write(b"after"):
        pass
    cluster.disk(others[1]).is_full.clear()
    await cluster.until(lambda: all(b"after" in cluster.journal(i) for i in (1, 2, 3)))
    assert cluster.journal(1) == cluster.journal(2) == cluster.journal(3)


async def test_a_snapshot_without_room_is_made_later(cluster: Cluster) -> None:
    leader = await cluster.leader()
    disk = cluster.disk(leader.raft_id)
    disk.is_full.set()
    compacting = leader._loop.disk.write(lambda: disk.save_snapshot(Snapshot(), 0))
    await cluster.until(compacting.future.done)
    assert not compacting.is_done(0)
    assert compacting.problem
    assert not compacting.is_done(1)
    disk.is_full.clear()
    assert not compacting.is_done(10_000)  # made again
    await cluster.until(lambda: compacting.is_done(10_000))
    assert compacting.problem == ""


async def test_any_other_failure_ends_the_node(cluster: Cluster) -> None:
    leader = await cluster.leader()
    disk = cluster.disk(leader.raft_id)

    def broken(*_: object) -> None:
        raise StorageFailed("the sync failed")

    disk.save = broken  # type: ignore[method-assign]
    with pytest.raises((Unavailable, Unknown)):
        await leader.propose(b"x")
    task = cluster.members[leader.raft_id].task
    assert task is not None
    with pytest.raises(StorageFailed, match="the sync failed"):
        await task
