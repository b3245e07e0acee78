"""RaftNode as the manager uses it: writes, reads, leadership, membership, restarts and failures."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from raft_cluster import Journal, TestCluster, TestMember

from pyswarm_common.errors import Exhausted, FailedPrecondition, NotFound, Unavailable, Unknown
from pyswarm_manager.raft.core.types import Entry, HardState, LogLost, MemberRole, Snapshot
from pyswarm_manager.raft.driver import RaftConfig, RaftNode
from pyswarm_manager.raft.memory_transport import MemoryTransport, Switchboard
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_manager.raft.storage.port import StorageFailed
from pyswarm_manager.raft.storage.sealer import AesGcmSealer
from pyswarm_manager.raft.storage.sqlite import SqliteStorage


async def test_a_sole_member_leads_and_gives_the_result_of_apply() -> None:
    async with TestCluster() as cluster:
        node = await cluster.grow(1)
        first, second = await node.propose(b"a"), await node.propose(b"b")
        assert (first.result, second.result) == (1, 2)
        assert second.index == first.index + 1 == node.applied_index


async def test_every_member_applies_the_same_in_the_same_order() -> None:
    async with TestCluster() as cluster:
        leader = await cluster.grow(3)
        results = await asyncio.gather(*(leader.propose(b"%d" % n) for n in range(300)))
        assert sorted(r.result for r in results if isinstance(r.result, int)) == list(range(1, 301))
        await cluster.until(lambda: all(m.node.applied_index == leader.applied_index for m in cluster.members.values()))
        assert cluster.journal(1) == cluster.journal(2) == cluster.journal(3)
        assert len(cluster.journal(1)) == 300


async def test_a_restarted_member_has_everything_again() -> None:
    async with TestCluster() as cluster:
        node = await cluster.grow(1)
        for n in range(5):
            await node.propose(b"%d" % n)
        await cluster.stop(1)
        node = await cluster.start(1)
        await cluster.leader()
        assert cluster.journal(1) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_follower_names_the_leader() -> None:
    async with TestCluster() as cluster:
        await cluster.grow(3)
        follower = cluster.members[2].node
        await cluster.until(lambda: follower.leader_id == 1)
        with pytest.raises(Unavailable, match="ask the leader at host1:2377"):
            await follower.propose(b"x")
        assert follower.leader_address == "host1:2377"


async def test_what_is_too_large_or_too_much_is_refused() -> None:
    async with TestCluster(max_entry_bytes=100, max_pending_proposals=3) as cluster:
        node = await cluster.grow(1)
        with pytest.raises(Exhausted, match="at most 100"):
            await node.propose(b"x" * 101)
        outcomes = await asyncio.gather(*(node.propose(b"x") for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(Exhausted) == 2
        await node.propose(b"room again")


async def test_a_write_in_flight_when_leadership_is_lost_is_unknown() -> None:
    async with TestCluster() as cluster:
        leader = await cluster.grow(3)
        cluster.board.isolate(1, [2, 3])
        with pytest.raises(Unknown, match="read again"):
            await leader.propose(b"x")
        assert not leader.is_leader
        cluster.board.heal()
        await cluster.leader()


async def test_a_read_on_any_member_sees_every_write_that_was_acknowledged() -> None:
    async with TestCluster() as cluster:
        leader = await cluster.grow(3)
        for n in range(20):
            done = await leader.propose(b"%d" % n)
            member = cluster.members[n % 3 + 1]
            assert await member.node.read_barrier() >= done.index
            assert member.journal.entries[-1] == b"%d" % n


async def test_a_read_without_a_majority_is_unavailable() -> None:
    async with TestCluster(read_timeout_s=0.2, lease_ticks=0) as cluster:
        leader = await cluster.grow(3)
        cluster.board.isolate(1, [2, 3])
        with pytest.raises(Unavailable, match="no majority"):
            await leader.read_barrier()


async def test_a_leader_reads_alone_while_its_lease_lasts_and_not_longer() -> None:
    clock = itertools.count()
    async with TestCluster(read_timeout_s=0.2, election_ticks=1000, lease_ticks=900) as cluster:
        leader = await cluster.grow(3)
        done = await leader.propose(b"x")
        core = leader._loop.core
        await cluster.until(lambda: core.leased_index(core.state.now_us) is not None)
        cluster.board.isolate(1, [2, 3])
        assert await leader.read_barrier() == done.index
        frozen_us = core.state.now_us + 60_000_000  # as after a minute of SIGSTOP, before anything else happened
        leader._loop.clock_us = lambda: frozen_us + next(clock)
        with pytest.raises(Unavailable, match="no majority"):
            await leader.read_barrier()


async def test_a_leader_that_closes_hands_over() -> None:
    async with TestCluster(election_ticks=1000) as cluster:  # nobody would campaign by itself in time
        await cluster.grow(3)
        await cluster.stop(1, transfer=True)
        assert (await cluster.leader()).raft_id in (2, 3)


async def test_when_the_leader_is_gone_another_leads_and_nothing_is_lost() -> None:
    async with TestCluster() as cluster:
        leader = await cluster.grow(3)
        await leader.propose(b"kept")
        await cluster.stop(1)
        leader = await cluster.leader()
        await leader.propose(b"more")
        assert cluster.journal(leader.raft_id) == [b"kept", b"more"]
        await cluster.start(1)
        await cluster.until(lambda: cluster.journal(1) == [b"kept", b"more"])


async def test_leadership_can_be_followed() -> None:
    async with TestCluster() as cluster:
        node = await cluster.start(1, {})
        seen = []
        async for leadership in node.subscribe_leadership():
            seen.append(leadership)
            if leadership.is_leader:
                await node.close()
        assert seen[-2].is_leader
        assert not seen[-1].is_leader
        assert [leadership.term for leadership in seen] == sorted(leadership.term for leadership in seen)


async def test_a_member_that_never_starts_costs_the_cluster_nothing() -> None:
    async with TestCluster() as cluster:
        leader = await cluster.grow(1)
        await leader.add_member(2, "nowhere:1")
        await leader.propose(b"x")
        assert leader.members[2].role is MemberRole.LEARNER
        await leader.remove_member(2)
        assert 2 not in leader.members


async def test_a_removed_member_learns_it_and_cannot_return() -> None:
    async with TestCluster() as cluster:
        leader = await cluster.grow(3)
        await leader.remove_member(3)
        await asyncio.wait_for(cluster.members[3].node.wait_removed(), 10)
        assert sorted(leader.members) == [1, 2]
        await leader.propose(b"x")
        with pytest.raises(FailedPrecondition, match="fresh state directory"):
            await leader.add_member(3, "host3:2377")


async def test_a_leader_can_remove_itself() -> None:
    async with TestCluster() as cluster:
        leader = await cluster.grow(3)
        await leader.remove_member(1)
        await asyncio.wait_for(leader.wait_removed(), 10)
        successor = await cluster.leader()
        await successor.propose(b"x")
        assert sorted(successor.members) == [2, 3]


async def test_a_removal_that_breaks_the_majority_is_refused_without_force() -> None:
    async with TestCluster(election_ticks=6) as cluster:
        leader = await cluster.grow(3)
        with pytest.raises(NotFound):
            await leader.remove_member(9)
        await cluster.stop(3)
        await cluster.until(lambda: not leader.members[3].is_active)
        with pytest.raises(FailedPrecondition, match="majority"):
            await leader.remove_member(2)
        await leader.remove_member(3)
        await leader.remove_member(2)
        with pytest.raises(FailedPrecondition, match="last manager"):
            await leader.remove_member(1)


async def test_an_address_can_change() -> None:
    async with TestCluster() as cluster:
        leader = await cluster.grow(2)
        await leader.update_address(2, "elsewhere:2377")
        assert leader.members[2].address == "elsewhere:2377"
        assert leader.members[2].role is MemberRole.VOTER


async def test_a_state_directory_serves_one_member_of_one_cluster() -> None:
    async with TestCluster() as cluster:
        await cluster.grow(1)
        await cluster.stop(1)
        member = cluster.members[1]
        with pytest.raises(FailedPrecondition, match="already belongs to a cluster"):
            await cluster.start(1, {})
        cluster.members[5] = TestMember(5)
        cluster.members[5].storage = member.storage
        with pytest.raises(LogLost, match="another raft id"):
            await cluster.start(5)


async def test_an_entry_that_cannot_be_applied_ends_the_member() -> None:
    async with TestCluster() as cluster:
        node = await cluster.grow(1)
        with pytest.raises(Unknown):
            await node.propose(b"broken")
        task = cluster.members[1].task
        assert task is not None
        with pytest.raises(ValueError, match="cannot be applied"):
            await task


class FailingStorage(MemoryStorage):
    """A disk whose sync fails at some time."""

    is_full = False

    def save(self, hard_state: HardState, entries: Sequence[Entry], snapshot: Snapshot | None) -> None:
        if self.is_full:
            raise StorageFailed("the disk is full")
        super().save(hard_state, entries, snapshot)


async def test_a_failed_write_ends_the_member_and_acknowledges_nothing() -> None:
    async with TestCluster() as cluster:
        member = cluster.members[1] = TestMember(1)
        storage = member.storage = FailingStorage()
        node = await cluster.grow(1)
        storage.is_full = True
        with pytest.raises((Unavailable, Unknown)):
            await node.propose(b"x")
        assert member.task is not None
        with pytest.raises(StorageFailed):
            await member.task


async def test_a_member_that_lags_behind_a_snapshot_gets_it() -> None:
    async with TestCluster(snapshot_entries=40, keep_entries=5) as cluster:
        leader = await cluster.grow(3)
        await cluster.stop(3)
        for n in range(200):
            await leader.propose(b"%d" % n)
        assert leader._loop.core.state.log.base_index > 100
        await cluster.start(3)
        await cluster.until(lambda: cluster.journal(3) == cluster.journal(1))
        assert cluster.members[3].journal.restored == 1
        await cluster.stop(1)
        await cluster.start(1)
        await cluster.until(lambda: cluster.journal(1) == cluster.journal(3))


async def test_a_node_that_is_closed_before_it_runs_lets_go_of_its_disk(tmp_path: Path) -> None:
    for _ in range(2):
        storage = SqliteStorage(tmp_path / "raft.db", AesGcmSealer(bytes(32)))
        transport = MemoryTransport(1, Switchboard())
        node = await RaftNode.open(RaftConfig(1, "host1:1"), storage, transport, Journal(), None)
        await node.close()
