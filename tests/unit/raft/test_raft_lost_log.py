"""A member whose log lacks what it acknowledged finds out, and ends; what only waits for it is told."""

from __future__ import annotations

import asyncio

import pytest
from raft_cluster import TestCluster

from pyswarm_manager.raft.core.configuration import encode_change
from pyswarm_manager.raft.core.messages import Heartbeat
from pyswarm_manager.raft.core.raft import Raft
from pyswarm_manager.raft.core.types import (
    ConfChange,
    ConfOperation,
    Entry,
    EntryKind,
    HardState,
    LogLost,
    Options,
    Snapshot,
)

TERM = 3


def follower(last_index: int) -> Raft:
    members = [
        Entry(index, 1, EntryKind.CONFIG, encode_change(ConfChange(ConfOperation.ADD_VOTER, index, f"h{index}:1")))
        for index in (1, 2, 3)
    ]
    rest = [Entry(index, TERM, EntryKind.NORMAL, b"x") for index in range(4, last_index + 1)]
    hard_state = HardState(TERM, 1, 3)
    return Raft(2, hard_state, Snapshot(), [*members, *rest], options=Options(), random_below=lambda bound: 0, now_us=0)


def test_a_commit_index_beyond_the_log_is_a_lost_log() -> None:
    member = follower(last_index=10)
    member.step(Heartbeat(2, 1, TERM, 10))
    assert member.state.log.committed == 10
    with pytest.raises(LogLost, match="up to 11, and it ends at 10"):
        member.step(Heartbeat(2, 1, TERM, 11))


async def test_whoever_waits_for_a_member_that_failed_is_told() -> None:
    async with TestCluster() as cluster:
        await cluster.grow(3)
        member = cluster.members[2].node
        await cluster.until(lambda: member.leader_id == 1)
        seen: list[int | None] = []

        async def follow() -> None:
            async for leadership in member.subscribe_leadership():
                seen.append(leadership.leader_id)

        following = asyncio.create_task(follow())
        await cluster.until(lambda: bool(seen))
        await member.receive([Heartbeat(2, 1, member.term, 1 << 40)])
        await asyncio.wait_for(following, 10.0)  # it ends, and does not turn in circles
        assert len(seen) < 10
