"""Promotion, demotion, leaving: certificates, Node objects and Raft's members move together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from manager_harness import Manager, Swarm, asked, make_cluster, make_identity, worker_node

from pyswarm.v1 import ca_pb2, types_pb2
from pyswarm.v1 import control_pb2 as pb
from pyswarm_common import errors
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.model import ManagerStatus, Node, NodeRole, NodeSpec, NodeState
from pyswarm_manager.ca.roles import BecomeWorker, ForgetMembership, RemoveMember, next_steps, run_roles
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.raft.ports import MemberStatus
from pyswarm_manager.store.changes import Create
from pyswarm_manager.store.tables import Tables

WORKER = "w" * 25


@contextlib.asynccontextmanager
async def roles_of(*managers: Manager) -> AsyncIterator[None]:
    """The roles loop on whichever of them leads, as the process runs it."""

    async def lead(manager: Manager) -> None:
        async for leadership in manager.raft.subscribe_leadership():
            if leadership.is_leader:
                loop = asyncio.ensure_future(run_roles(manager.store, manager.raft))
                with contextlib.suppress(errors.Unavailable):
                    await manager.raft.wait_leadership_change(leadership)
                loop.cancel()
                await asyncio.gather(loop, return_exceptions=True)

    tasks = [asyncio.ensure_future(lead(manager)) for manager in managers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def set_role(swarm: Swarm, node_id: str, role: int, manager: Manager | None = None) -> None:
    control = swarm.control(manager)
    node = (await asked(control.GetNode(pb.GetNodeRequest(node=node_id)))).node
    node.spec.role = role  # type: ignore[assignment]
    await asked(control.UpdateNode(pb.UpdateNodeRequest(node_id=node_id, version=node.meta.version, spec=node.spec)))


async def renewed(swarm: Swarm, identity: NodeIdentity, manager: Manager | None = None) -> NodeIdentity:
    key = generate_key()
    answer = await asked(
        swarm.ca(manager, identity).RenewCertificate(ca_pb2.RenewCertificateRequest(csr=make_csr(key)))
    )
    return NodeIdentity(answer.certificate, key_to_pem(key), answer.root_ca_cert)


# ---- renewal


async def test_a_promoted_worker_fetches_a_managers_certificate(swarm3: Swarm) -> None:
    await swarm3.create(worker_node(WORKER, "worker1"))
    identity = make_identity(swarm3.root, WORKER, NodeRole.WORKER)
    follower = swarm3.followers[0]
    assert (await renewed(swarm3, identity, follower)).role is NodeRole.WORKER
    await set_role(swarm3, WORKER, types_pb2.NODE_ROLE_MANAGER)
    promoted = await renewed(swarm3, identity, follower)
    assert (promoted.role, promoted.node_id) == (NodeRole.MANAGER, WORKER)
    assert swarm3.leader.store.view.nodes[WORKER].role is NodeRole.MANAGER


async def test_a_removed_node_gets_no_certificate(swarm: Swarm) -> None:
    identity = make_identity(swarm.root, WORKER, NodeRole.WORKER)
    with pytest.raises(errors.Forbidden, match="was removed from the swarm"):
        await renewed(swarm, identity)
    with pytest.raises(errors.Forbidden, match="was removed from the swarm"):
        await asked(swarm.ca(identity=identity).Leave(ca_pb2.LeaveRequest()))


async def test_a_manager_that_is_being_demoted_waits(swarm: Swarm) -> None:
    node = worker_node("x" * 25, "x", spec=NodeSpec(role=NodeRole.WORKER), role=NodeRole.MANAGER)
    await swarm.create(node)
    with pytest.raises(errors.Unavailable, match="is being demoted"):
        await renewed(swarm, make_identity(swarm.root, node.id, NodeRole.MANAGER))


def pretending(node_id: str) -> tuple[tuple[str, str], ...]:
    return (("pyswarm-forwarded-by", "x"), ("pyswarm-caller", "manager"), ("pyswarm-caller-node", node_id))


async def test_a_worker_cannot_pretend_to_be_another_node(swarm: Swarm) -> None:
    await swarm.create(worker_node(WORKER, "worker1"))
    request = ca_pb2.RenewCertificateRequest(csr=make_csr(generate_key()))
    ca = swarm.ca(identity=make_identity(swarm.root, WORKER, NodeRole.WORKER))
    answer = await asked(ca.RenewCertificate(request, metadata=pretending(swarm.leader.node_id)))
    mine = NodeIdentity(answer.certificate, b"", answer.root_ca_cert)
    assert (mine.node_id, mine.role) == (WORKER, NodeRole.WORKER)


async def test_a_removed_manager_cannot_ask_for_others(swarm: Swarm) -> None:
    removed = make_identity(swarm.root, "z" * 25, NodeRole.MANAGER)
    metadata = pretending(swarm.leader.node_id)
    request = ca_pb2.RenewCertificateRequest(csr=make_csr(generate_key()))
    with pytest.raises(errors.Forbidden, match="not a manager of this swarm any more"):
        await asked(swarm.ca(identity=removed).RenewCertificate(request, metadata=metadata))
    with pytest.raises(errors.Forbidden):
        await asked(swarm.ca(identity=removed).Leave(ca_pb2.LeaveRequest(force=True), metadata=metadata))


# ---- joining Raft


async def joined(swarm: Swarm, via: Manager) -> Manager:
    """A fourth manager, whose node is in the store already."""
    new = await swarm.add()
    node = worker_node(new.node_id, "manager4", spec=NodeSpec(role=NodeRole.MANAGER), role=NodeRole.MANAGER)
    await swarm.leader.store.propose([Create(node)])
    request = ca_pb2.JoinRaftRequest(raft_id=new.raft_id, address=new.address)
    for _ in range(2):  # asking again changes nothing, for who knows its log
        request.last_index = new.raft.last_index
        answer = await asked(swarm.ca(via, new.identity).JoinRaft(request))
        assert answer.members[new.raft_id] == new.address
        assert answer.cluster_id == "c" * 25
        await swarm.wait(lambda: votes_and_is_up_to_date(swarm.leader, new))
    return new


def votes_and_is_up_to_date(leader: Manager, new: Manager) -> bool:
    """Nothing is on its way that would make its log longer than it says."""
    member = leader.raft.members[new.raft_id]
    return member.role is MemberRole.VOTER and new.raft.last_index == leader.raft.last_index


async def test_a_manager_joins_through_a_follower_and_becomes_a_voter(swarm3: Swarm) -> None:
    leader = swarm3.leader
    new = await joined(swarm3, swarm3.followers[0])
    await swarm3.wait(lambda: leader.raft.members[new.raft_id].role is MemberRole.VOTER)
    await swarm3.wait(lambda: new.node_id in new.store.view.nodes)
    status = leader.store.view.nodes[new.node_id].manager_status
    assert status == ManagerStatus(raft_id=new.raft_id, address=new.address)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"raft_id": 0}, errors.InvalidArgument),
        ({"raft_id": 2**63}, errors.InvalidArgument),
        ({"raft_id": 1}, errors.AlreadyExists),
        ({"address": "nowhere"}, errors.InvalidArgument),
        ({"address": "a:0"}, errors.InvalidArgument),
    ],
)
async def test_who_may_not_join_raft(swarm: Swarm, changes: dict[str, Any], error: type[Exception]) -> None:
    node = worker_node("x" * 25, "x", spec=NodeSpec(role=NodeRole.MANAGER), role=NodeRole.MANAGER)
    await swarm.create(node, worker_node("y" * 25, "y"))
    request = ca_pb2.JoinRaftRequest(**{"raft_id": 9, "address": "127.0.0.1:1", **changes})
    with pytest.raises(error):
        await asked(swarm.ca(identity=make_identity(swarm.root, node.id, NodeRole.MANAGER)).JoinRaft(request))
    request = ca_pb2.JoinRaftRequest(raft_id=9, address="127.0.0.1:1")
    demoted = make_identity(swarm.root, "y" * 25, NodeRole.MANAGER)
    with pytest.raises(errors.Forbidden, match="promote it first"):
        await asked(swarm.ca(identity=demoted).JoinRaft(request))
    assert set(swarm.leader.raft.members) == {1}


async def test_a_node_that_lost_its_state_joins_with_a_new_raft_id(swarm3: Swarm) -> None:
    lost = swarm3.followers[0]
    await swarm3.kill(lost)
    leader = swarm3.leader
    request = ca_pb2.JoinRaftRequest(raft_id=77, address="127.0.0.1:1")
    await asked(swarm3.ca(leader, lost.identity).JoinRaft(request))
    assert lost.raft_id not in leader.raft.members
    assert leader.raft.is_removed(lost.raft_id)
    assert leader.raft.members[77].role is MemberRole.LEARNER
    request.raft_id = lost.raft_id
    answer = await asked(swarm3.ca(leader, lost.identity).JoinRaft(request))
    assert answer.needs_new_raft_id  # refused, it would be started again for ever, and ask the same
    assert leader.store.view.nodes[lost.node_id].manager_status == ManagerStatus(raft_id=77, address="127.0.0.1:1")


# ---- demotion and leaving


async def test_a_demoted_manager_leaves_raft_and_then_is_a_worker(swarm3: Swarm) -> None:
    follower = swarm3.followers[0]
    async with roles_of(*swarm3.managers):
        await set_role(swarm3, follower.node_id, types_pb2.NODE_ROLE_WORKER)
        leader = swarm3.leader
        await swarm3.wait(lambda: leader.store.view.nodes[follower.node_id].role is NodeRole.WORKER)
    assert follower.raft_id not in leader.raft.members
    assert leader.store.view.nodes[follower.node_id].manager_status is None
    assert (await renewed(swarm3, follower.identity, leader)).role is NodeRole.WORKER


async def test_a_demoted_leader_hands_over_first(swarm3: Swarm) -> None:
    old = swarm3.leader
    async with roles_of(*swarm3.managers):
        await set_role(swarm3, old.node_id, types_pb2.NODE_ROLE_WORKER)
        others = [manager for manager in swarm3.managers if manager is not old]

        def demoted() -> bool:
            leader = next((manager for manager in others if manager.raft.is_leader), None)
            return leader is not None and leader.store.view.nodes[old.node_id].role is NodeRole.WORKER

        await swarm3.wait(demoted)
    leader = next(manager for manager in others if manager.raft.is_leader)
    assert old.raft_id not in leader.raft.members


async def test_a_manager_is_removed_once_it_is_demoted(swarm3: Swarm) -> None:
    follower = swarm3.followers[0]
    control = swarm3.control()
    for force in (False, True):
        with pytest.raises(errors.FailedPrecondition, match="must be demoted to worker before removal"):
            await asked(control.RemoveNode(pb.RemoveNodeRequest(node=follower.node_id, force=force)))
    await set_role(swarm3, follower.node_id, types_pb2.NODE_ROLE_WORKER)
    with pytest.raises(errors.FailedPrecondition, match="is not down and can't be removed"):
        await asked(control.RemoveNode(pb.RemoveNodeRequest(node=follower.node_id)))
    # Nothing has taken it out of Raft yet: the removal does.
    await asked(control.RemoveNode(pb.RemoveNodeRequest(node=follower.node_id, force=True)))
    assert follower.raft_id not in swarm3.leader.raft.members
    assert follower.node_id not in swarm3.leader.store.view.nodes


async def test_a_worker_leaves(swarm: Swarm) -> None:
    await swarm.create(worker_node(WORKER, "worker1"))
    identity = make_identity(swarm.root, WORKER, NodeRole.WORKER)
    await asked(swarm.ca(identity=identity).Leave(ca_pb2.LeaveRequest()))
    node = swarm.leader.store.view.nodes[WORKER]
    assert (node.status.state, node.status.message) == (NodeState.DOWN, "left the swarm")
    await asked(swarm.control().RemoveNode(pb.RemoveNodeRequest(node=WORKER)))


async def test_nothing_is_left_of_a_node_that_never_came(swarm: Swarm) -> None:
    await swarm.create(Node(id=WORKER))
    identity = make_identity(swarm.root, WORKER, NodeRole.WORKER)
    await asked(swarm.ca(identity=identity).Leave(ca_pb2.LeaveRequest()))
    assert WORKER not in swarm.leader.store.view.nodes


@pytest.mark.parametrize("leads", [True, False])
async def test_a_manager_leaves_only_by_force(swarm3: Swarm, leads: bool) -> None:
    leaving = swarm3.leader if leads else swarm3.followers[0]
    with pytest.raises(errors.FailedPrecondition, match="participating as a manager"):
        await asked(swarm3.ca(leaving, leaving.identity).Leave(ca_pb2.LeaveRequest()))
    await asked(swarm3.ca(leaving, leaving.identity).Leave(ca_pb2.LeaveRequest(force=True)))
    others = [manager for manager in swarm3.managers if manager is not leaving]
    leader = next(manager for manager in others if manager.raft.is_leader)
    assert leaving.raft_id not in leader.raft.members
    node = leader.store.view.nodes[leaving.node_id]
    assert (node.role, node.manager_status, node.status.state) == (NodeRole.WORKER, None, NodeState.DOWN)


async def test_the_last_manager_may_go(swarm: Swarm) -> None:
    leader = swarm.leader
    await asked(swarm.ca(identity=leader.identity).Leave(ca_pb2.LeaveRequest(force=True)))
    assert leader.raft.is_leader


async def test_who_leaves_by_force_and_costs_the_majority_leaves_raft_later(swarm3: Swarm) -> None:
    lost, leaving = swarm3.followers
    await swarm3.kill(lost)
    leader = swarm3.leader
    await swarm3.wait(lambda: not leader.raft.members[lost.raft_id].is_active)
    await asked(swarm3.ca(leader, leaving.identity).Leave(ca_pb2.LeaveRequest(force=True)))
    assert leader.store.view.nodes[leaving.node_id].role is NodeRole.WORKER
    assert leaving.raft_id in leader.raft.members  # its removal could not be committed by the leader alone
    assert [step.raft_id for step in next_steps(leader.store.view, leader.raft.members)] == [leaving.raft_id]


# ---- what the roles loop does next, as a table


def node(raft_id: int | None, wanted: NodeRole, role: NodeRole) -> Node:
    status = ManagerStatus(raft_id=raft_id) if raft_id is not None else None
    return Node(id=f"node{raft_id}", spec=NodeSpec(role=wanted), role=role, manager_status=status)


MANAGER, DEMOTED = (NodeRole.MANAGER, NodeRole.MANAGER), (NodeRole.WORKER, NodeRole.MANAGER)


@pytest.mark.parametrize(
    ("nodes", "members", "step"),
    [
        ([node(1, *MANAGER), node(2, *MANAGER)], {1, 2}, None),
        ([node(1, *MANAGER), node(2, *DEMOTED)], {1, 2}, RemoveMember(2)),
        ([node(1, *MANAGER), node(2, *DEMOTED)], {1}, BecomeWorker(node(2, *DEMOTED))),
        ([node(1, *MANAGER)], {1, 2}, RemoveMember(2)),
        ([node(1, *MANAGER), node(2, *MANAGER)], {1}, None),
        ([node(1, *MANAGER), node(None, *MANAGER)], {1, 2}, None),
        ([node(1, *MANAGER), node(None, *MANAGER), node(2, *DEMOTED)], {1, 2}, RemoveMember(2)),
        ([node(1, *MANAGER), node(2, NodeRole.WORKER, NodeRole.WORKER)], {1, 2}, RemoveMember(2)),
    ],
)
def test_the_next_step(nodes: list[Node], members: set[int], step: object) -> None:
    view = Tables()
    status = {i: MemberStatus("", MemberRole.VOTER, is_active=True, match_index=1) for i in members}
    assert not next_steps(view, status)  # nothing before there is a cluster
    view.put(make_cluster(ROOT))
    for item in nodes:
        view.put(item)
    assert next_steps(view, status)[:1] == ([] if step is None else [step])


def test_who_was_removed_and_is_wanted_back_loses_the_raft_id_that_never_returns() -> None:
    back, joining = node(2, *MANAGER), node(3, *MANAGER)
    view = Tables()
    view.put(make_cluster(ROOT))
    for item in (node(1, *MANAGER), back, joining):
        view.put(item)
    status = {1: MemberStatus("", MemberRole.VOTER, is_active=True, match_index=1)}
    assert next_steps(view, status, lambda raft_id: raft_id == 2) == [ForgetMembership(back)]


ROOT = RootAuthority.create("c" * 25, 0.0)
