"""What an operator asks of real manager processes, and demotions down to the last one."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from manager_cluster import ManagerCluster, ManagerProcess

from pyswarm.v1 import control_pb2, operator_pb2, operator_pb2_grpc, types_pb2
from pyswarm_common import errors
from pyswarm_common.rpc import error_from_rpc
from pyswarm_manager.main import EXIT_REMOVED


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ManagerCluster]:
    made = ManagerCluster(tmp_path)
    try:
        yield made
    finally:
        await made.close()


def operator(manager: ManagerProcess) -> Any:
    return operator_pb2_grpc.OperatorStub(manager.channel)


async def demote(via: ManagerProcess, target: ManagerProcess) -> None:
    nodes = (await via.control.ListNodes(control_pb2.ListNodesRequest(), timeout=5.0)).nodes
    node = next(node for node in nodes if node.manager_status.raft_id == target.raft_id)
    node.spec.role = types_pb2.NODE_ROLE_WORKER
    request = control_pb2.UpdateNodeRequest(node_id=node.id, version=node.meta.version, spec=node.spec)
    try:
        await via.control.UpdateNode(request, timeout=10.0)
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from None


async def ended(manager: ManagerProcess) -> int:
    assert manager.process is not None
    return await asyncio.wait_for(manager.process.wait(), 20.0)


async def test_replicas_are_equal_also_after_one_was_killed_and_started_again(cluster: ManagerCluster) -> None:
    first, second, third = await cluster.start_three()
    await third.kill(signal.SIGKILL)
    await first.wait_health(lambda health: any(not member.reachable for member in health.members))
    found = await operator(second).CheckReplicas(operator_pb2.CheckReplicasRequest(), timeout=20.0)
    errors_by_address = {replica.address: replica.error for replica in found.replicas}
    assert errors_by_address == {first.address: "", second.address: "", third.address: "unreachable"}
    await third.start()
    await third.wait_follows(first, found.index)
    await first.wait_health(lambda health: all(member.reachable for member in health.members))
    found = await operator(third).CheckReplicas(operator_pb2.CheckReplicasRequest(), timeout=20.0)
    assert len(found.replicas) == 3
    assert len({replica.digest for replica in found.replicas}) == 1
    state = await operator(third).GetRaftState(operator_pb2.GetRaftStateRequest(), timeout=5.0)
    assert (state.role, state.leader_raft_id) == ("follower", first.raft_id)
    assert state.applied_index >= found.index


async def test_three_managers_are_demoted_down_to_one_the_leader_of_two_included(cluster: ManagerCluster) -> None:
    first, second, third = await cluster.start_three()
    await demote(second, third)
    assert await ended(third) == EXIT_REMOVED
    await first.wait_health(lambda health: len(health.members) == 2)
    request = operator_pb2.TransferLeadershipRequest()
    await operator(second).TransferLeadership(request, timeout=10.0)
    await second.wait_health(lambda health: health.leader_raft_id == second.raft_id)
    await demote(first, second)  # asked of the follower, and it is the leader of two that goes
    assert await ended(second) == EXIT_REMOVED
    await first.wait_health(
        lambda health: health.leader_raft_id == first.raft_id and [m.raft_id for m in health.members] == [first.raft_id]
    )
    with pytest.raises(errors.FailedPrecondition, match="the last manager"):
        await demote(first, first)
