"""Reads that come together share one question to the leader; a read never takes an answer older than itself."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from pyswarm_common.errors import Unavailable
from pyswarm_manager.raft.core.messages import Message, ReadIndexRequest
from pyswarm_manager.raft.waiting import Reads

sys.path.insert(0, str(Path(__file__).parent))
from raft_cluster import TestCluster


async def test_reads_of_one_turn_share_a_question_and_later_ones_ask_anew() -> None:
    reads = Reads(7)
    first, second = reads.join(), reads.join()
    reads.sent()
    later = reads.join()
    assert first is second
    assert later.context == first.context + 1
    reads.confirmed(first.context, 40)
    assert first.future.result() == 40
    assert not later.future.done()


async def test_who_gives_up_takes_nobody_else_along() -> None:
    reads = Reads(0)
    barrier = reads.join()
    assert reads.join() is barrier
    reads.leave(barrier)
    reads.confirmed(barrier.context, 3)
    assert barrier.future.result() == 3
    reads.leave(barrier)
    assert reads.join() is not barrier


async def test_all_that_wait_are_told_when_the_node_stops() -> None:
    reads = Reads(0)
    sent = reads.join()
    reads.sent()
    unsent = reads.join()
    reads.fail_all(Unavailable("stopped"))
    for barrier in (sent, unsent):
        with pytest.raises(Unavailable):
            barrier.future.result()


async def test_a_follower_asks_once_for_all_reads_that_came_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async with TestCluster("memory") as cluster:
        leader = await cluster.grow(3)
        written = (await leader.propose(b"x")).index
        follower = cluster.members[2].node
        asked: list[Message] = []
        step = leader._loop.core.step

        def watched(message: Message) -> None:
            if isinstance(message, ReadIndexRequest):
                asked.append(message)
            step(message)

        monkeypatch.setattr(leader._loop.core, "step", watched)
        indexes = await asyncio.gather(*(follower.read_barrier() for _ in range(50)))
        assert min(indexes) >= written
        assert follower.applied_index >= written
        assert 1 <= len(asked) < 50


async def test_reads_behind_a_lost_leader_are_answered_by_the_next() -> None:
    async with TestCluster("memory") as cluster:
        await cluster.grow(3)
        reading = [asyncio.ensure_future(cluster.members[3].node.read_barrier()) for _ in range(5)]
        await cluster.stop(1)
        assert len(set(await asyncio.gather(*reading))) >= 1
