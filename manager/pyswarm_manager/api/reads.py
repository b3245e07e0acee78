"""Reads: how fresh the view must be, and what a manager adds to a node when it shows it."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Node
from pyswarm_manager.api.forward import no_leader
from pyswarm_manager.ports import RaftPort
from pyswarm_manager.raft.core.types import MemberRole

BARRIER_TIMEOUT_S = 1.0


async def wait_fresh(raft: RaftPort, consistency: int) -> None:
    """Return when the view may be read. Unavailable within a second if the wanted freshness cannot be had."""
    if consistency == control_pb2.CONSISTENCY_LOCAL:
        return
    if consistency != control_pb2.CONSISTENCY_LINEARIZABLE:
        raise InvalidArgument("unknown consistency", [("consistency", f"{consistency} is not a consistency")])
    try:
        async with asyncio.timeout(BARRIER_TIMEOUT_S):
            await raft.read_barrier()
    except TimeoutError:
        raise no_leader(raft) from None


def with_manager_status(node: Node, raft: RaftPort) -> Node:
    """The node with what Raft knows of it: who leads, and (known to the leader only) who is heard of."""
    status = node.manager_status
    if status is None:
        return node
    member = raft.members.get(status.raft_id)
    reachable = member is not None and (member.is_active or not raft.is_leader)
    leads = member is not None and raft.leader_id == status.raft_id
    learner = member is not None and member.role is MemberRole.LEARNER
    return replace(node, manager_status=replace(status, leader=leads, reachable=reachable, learner=learner))
