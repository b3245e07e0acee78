"""The operator's API on real Raft and real gRPC: peers, state, leadership, the store, and replicas compared."""

from __future__ import annotations

import asyncio

import pytest
from manager_harness import Swarm, asked, new_id, service_spec, worker_node
from msgspec.structs import replace

from pyswarm.v1 import control_pb2, types_pb2
from pyswarm.v1 import operator_pb2 as pb
from pyswarm_common import errors
from pyswarm_common.model import ClusterSpec, ManagerStatus, Node, NodeRole, Service
from pyswarm_manager.store.checkpoints import KEPT_TABLES, Checkpoints
from pyswarm_manager.store.digest import digest
from pyswarm_manager.store.tables import Tables


async def test_peers_are_told_by_the_leader_whoever_is_asked(swarm3: Swarm) -> None:
    leader = swarm3.leader
    expected = sorted((m.node_id, m.raft_id, m.address) for m in swarm3.managers)
    for asked_manager in swarm3.managers:
        found = await asked(swarm3.operator(asked_manager).ListPeers(pb.ListPeersRequest()))
        assert sorted((p.node_id, p.raft_id, p.address) for p in found.peers) == expected
        roles = {p.raft_id: p.role for p in found.peers}
        assert roles.pop(leader.raft_id) == pb.PEER_ROLE_LEADER
        assert set(roles.values()) == {pb.PEER_ROLE_VOTER}
        assert all(p.reachable and 0 < p.match_index <= found.last_index for p in found.peers)


async def test_a_peer_that_is_lost_and_one_that_is_leaving(swarm3: Swarm) -> None:
    lost, leaving = swarm3.followers
    await swarm3.kill(lost)
    await swarm3.wait(lambda: not swarm3.leader.raft.members[lost.raft_id].is_active)
    node = swarm3.leader.store.view.nodes[lost.node_id]
    await demote(swarm3, node.id)
    found = await asked(swarm3.operator().ListPeers(pb.ListPeersRequest()))
    peers = {p.raft_id: p for p in found.peers}
    assert (peers[lost.raft_id].reachable, peers[lost.raft_id].leaving) == (False, True)
    assert (peers[leaving.raft_id].reachable, peers[leaving.raft_id].leaving) == (True, False)
    assert peers[lost.raft_id].last_contact_s > 0


async def test_the_state_is_that_of_the_manager_that_is_asked(swarm3: Swarm) -> None:
    follower = swarm3.followers[0]
    state = await asked(swarm3.operator(follower).GetRaftState(pb.GetRaftStateRequest()))
    assert (state.node_id, state.raft_id, state.role) == (follower.node_id, follower.raft_id, "follower")
    assert state.leader_raft_id == swarm3.leader.raft_id
    assert 0 < state.commit_index <= state.last_index
    assert state.log_entries == state.last_index  # never shortened yet
    assert state.log_bytes > 0
    assert state.disk == "ok"
    assert state.store_index == follower.store.view.index
    own = await asked(swarm3.operator().GetRaftState(pb.GetRaftStateRequest()))
    assert (own.role, own.term) == ("leader", state.term)


async def test_leadership_moves_to_whom_it_is_given(swarm3: Swarm) -> None:
    old, target = swarm3.leader, swarm3.followers[0]
    via = swarm3.followers[1]
    request = pb.TransferLeadershipRequest(node=f"manager{target.raft_id}")
    found = await asked(swarm3.operator(via).TransferLeadership(request))
    assert (found.node_id, found.unchanged) == (target.node_id, False)
    await swarm3.wait(lambda: target.raft.is_leader)
    again = await asked(swarm3.operator(old).TransferLeadership(request))
    assert again.unchanged
    anybody = await asked(swarm3.operator(old).TransferLeadership(pb.TransferLeadershipRequest()))
    assert anybody.node_id not in ("", target.node_id)


async def test_leadership_moves_only_to_who_can_lead(swarm3: Swarm) -> None:
    lost = swarm3.followers[0]
    leader = swarm3.leader
    late = worker_node("l" * 25, "late", role=NodeRole.MANAGER, manager_status=ManagerStatus(raft_id=77))
    await swarm3.create(worker_node("w" * 25, "worker1"), late)
    await leader.raft.add_member(77, "127.0.0.1:1")
    await swarm3.kill(lost)
    await swarm3.wait(lambda: not leader.raft.members[lost.raft_id].is_active)
    refused = (("worker1", "is not a manager"), (lost.node_id, "is not reachable"), ("late", "does not vote yet"))
    for name, reason in refused:
        with pytest.raises(errors.FailedPrecondition, match=reason):
            await asked(swarm3.operator().TransferLeadership(pb.TransferLeadershipRequest(node=name)))
    with pytest.raises(errors.NotFound):
        await asked(swarm3.operator().TransferLeadership(pb.TransferLeadershipRequest(node="nobody")))
    assert leader.raft.is_leader


async def test_the_store_is_counted_and_measured(swarm: Swarm) -> None:
    labels = {"large": "x" * 5000}
    await swarm.create(
        Service(id=new_id(), spec=service_spec("small")),
        Service(id=new_id(), spec=service_spec("large", labels=labels)),
        worker_node("w" * 25, "worker1"),
    )
    found = await asked(swarm.operator().InspectStore(pb.InspectStoreRequest(kind="services")))
    kinds = {kind.kind: kind for kind in found.kinds}
    assert (kinds["service"].objects, kinds["node"].objects, kinds["cluster"].objects) == (2, 2, 1)
    assert [item.name for item in found.objects] == ["large", "small"]
    assert kinds["service"].bytes == sum(item.bytes for item in found.objects)
    assert kinds["service"].largest[0].name == "large"
    assert found.objects[0].bytes > 5000
    assert found.objects[0].version == found.index
    assert found.digest == digest(swarm.leader.store.view)
    one = await asked(swarm.operator().InspectStore(pb.InspectStoreRequest(kind="service", limit=1)))
    assert len(one.objects) == 1
    with pytest.raises(errors.InvalidArgument, match="choose one of cluster, node, service"):
        await asked(swarm.operator().InspectStore(pb.InspectStoreRequest(kind="pods")))


async def test_replicas_are_compared_at_one_index_while_writes_go_on(swarm3: Swarm) -> None:
    stop = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            await swarm3.leader.store.propose([])
            await swarm3.create(worker_node(new_id(), f"w{written}"))
            written += 1

    writer = asyncio.ensure_future(write())
    try:
        for asked_manager in swarm3.managers:
            before = written
            found = await asked(swarm3.operator(asked_manager).CheckReplicas(pb.CheckReplicasRequest()))
            assert len({replica.digest for replica in found.replicas}) == 1
            assert len(found.replicas) == 3
            assert found.replicas[0].digest
            await swarm3.wait(lambda before=before: written > before)
    finally:
        stop.set()
        await writer


async def test_a_replica_that_differs_is_named_and_one_that_is_down_too(swarm3: Swarm) -> None:
    wrong, lost = swarm3.followers
    view = wrong.store.view
    node = view.nodes[wrong.node_id]
    view.put(replace(node, description=replace(node.description, hostname="flipped")))
    found = await asked(swarm3.operator().CheckReplicas(pb.CheckReplicasRequest()))
    digests = {replica.node_id: replica.digest for replica in found.replicas}
    assert digests[wrong.node_id] != digests[lost.node_id] == digests[swarm3.leader.node_id]
    await swarm3.kill(lost)
    await swarm3.wait(lambda: not swarm3.leader.raft.members[lost.raft_id].is_active)
    found = await asked(swarm3.operator().CheckReplicas(pb.CheckReplicasRequest()))
    told = {replica.node_id: (bool(replica.digest), replica.error) for replica in found.replicas}
    assert told[lost.node_id] == (False, "unreachable")
    assert told[wrong.node_id] == (True, "")


async def test_nothing_is_told_of_an_index_that_was_no_checkpoint(swarm: Swarm) -> None:
    with pytest.raises(errors.FailedPrecondition, match="nothing is kept of index 1"):
        await asked(swarm.operator().GetDigest(pb.GetDigestRequest(index=1)))


async def test_checkpoints_keep_what_was_and_not_for_ever() -> None:
    checkpoints, tables, digests = Checkpoints(), Tables(), {}
    for index in range(1, KEPT_TABLES + 3):
        tables.index = index
        tables.put(Node(id=f"n{index}"))
        checkpoints.take(tables)
        digests[index] = digest(tables)
    tables.put(Node(id="later"))
    for index in (KEPT_TABLES + 1, KEPT_TABLES + 2):
        assert await checkpoints.digest_at(index) == digests[index]
        assert await checkpoints.digest_at(index) == digests[index]  # asked twice
    with pytest.raises(errors.FailedPrecondition):
        await checkpoints.digest_at(1)


# ---- what would lose the majority


async def demote(swarm: Swarm, node_id: str, *, via: int = 0, force: bool = False) -> None:
    manager = swarm.managers[via]
    node = (await asked(swarm.control(manager).GetNode(control_pb2.GetNodeRequest(node=node_id)))).node
    node.spec.role = types_pb2.NODE_ROLE_WORKER
    request = control_pb2.UpdateNodeRequest(node_id=node_id, version=node.meta.version, spec=node.spec, force=force)
    await asked(swarm.control(manager).UpdateNode(request))


async def test_two_demotions_at_once_on_different_managers_are_judged_together(swarm3: Swarm) -> None:
    """All three at once: two may go, since the one that stays is a majority of itself; the third is the last."""
    demotions = [demote(swarm3, m.node_id, via=i) for i, m in enumerate(list(swarm3.managers))]
    ended = await asyncio.gather(*demotions, return_exceptions=True)
    refused = [error for error in ended if error is not None]
    assert len(refused) == 1
    assert isinstance(refused[0], errors.FailedPrecondition)
    assert "the last manager" in str(refused[0])
    roles = [node.spec.role for node in swarm3.leader.store.view.nodes.values()]
    assert roles.count(NodeRole.MANAGER) == 1


async def test_force_demotes_against_the_majority_and_is_remembered(swarm3: Swarm) -> None:
    lost, kept = swarm3.followers
    await swarm3.kill(lost)
    leader = swarm3.leader
    await swarm3.wait(lambda: not leader.raft.members[lost.raft_id].is_active)
    with pytest.raises(errors.FailedPrecondition, match=rf"start manager{lost.raft_id} first, or use --force"):
        await demote(swarm3, kept.node_id)
    await demote(swarm3, kept.node_id, force=True)
    node = leader.store.view.nodes[kept.node_id]
    assert (node.spec.role, node.demotion_forced) == (NodeRole.WORKER, True)


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"managers": 16}, "managers"), ({"dead_manager_grace_s": 1.0}, "5s"), ({"dead_manager_grace_s": -1.0}, "5s")],
)
async def test_numbers_of_managers_that_are_refused(swarm: Swarm, changes: dict[str, float], field: str) -> None:
    control = swarm.control()
    cluster = (await asked(control.GetCluster(control_pb2.GetClusterRequest()))).cluster
    for name, value in changes.items():
        setattr(cluster.spec, name, value)
    request = control_pb2.UpdateClusterRequest(version=cluster.meta.version, spec=cluster.spec)
    with pytest.raises(errors.InvalidArgument, match=field):
        await asked(control.UpdateCluster(request))
    assert swarm.leader.store.view.cluster is not None
    assert swarm.leader.store.view.cluster.spec == replace(ClusterSpec(), name=cluster.spec.name)


async def test_a_demotion_is_judged_by_who_lives_now_and_not_by_who_did_a_moment_ago(swarm3: Swarm) -> None:
    lost, kept = swarm3.followers
    await swarm3.kill(lost)
    assert swarm3.leader.raft.members[lost.raft_id].is_active  # nobody has missed it yet
    with pytest.raises(errors.FailedPrecondition, match="1 of 2 managers reachable"):
        await demote(swarm3, kept.node_id)
    await demote(swarm3, lost.node_id)
