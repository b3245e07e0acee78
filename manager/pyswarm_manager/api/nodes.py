"""Writes of nodes, on the leader: labels, availability, the role wanted, and removal.

Decides what the managers' majority allows; the roles loop (`ca.roles`) carries a change of role out, and the node
itself fetches its new certificate.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import Node, NodeRole, NodeSpec, NodeState
from pyswarm_manager.api.ports import RaftPort
from pyswarm_manager.api.validate import check_node_spec, decode, refuse
from pyswarm_manager.api.writes import Writer, check_read_version, retried
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.store.changes import Change, Delete, Update, delete
from pyswarm_manager.store.lookup import find_node
from pyswarm_manager.store.tables import Kind, Tables


async def update_node(writer: Writer, request: control_pb2.UpdateNodeRequest) -> Node:
    spec = decode(NodeSpec, request.spec)
    refuse(check_node_spec(spec))

    async def attempt() -> Node:
        view = writer.store.view
        node = find_node(view, request.node_id)
        # What the dispatcher and the planner write of a node moves its version too, and contradicts no user.
        check_read_version("node", node.id, view.node_specs[node.id], request.version, node.meta.version)
        if node.spec.role is NodeRole.MANAGER and spec.role is NodeRole.WORKER:
            _check_demotion(view, writer.raft, node)
        changed = replace(node, spec=spec)
        await writer.store.propose([Update(changed)])
        return writer.store.view.nodes.get(node.id, changed)

    return await retried(attempt)


async def remove_node(writer: Writer, request: control_pb2.RemoveNodeRequest) -> None:
    async def attempt() -> None:
        node = find_node(writer.store.view, request.node)
        _check_removal(node, force=request.force)
        if node.manager_status is not None and node.manager_status.raft_id in writer.raft.members:
            await _leave_raft(writer.raft, node, node.manager_status.raft_id)
        view = writer.store.view
        current = view.nodes.get(node.id)
        if current is None:
            return
        tasks: list[Change] = [Delete(Kind.TASK, task.id) for task in view.tasks_on(node.id)]
        await writer.store.propose([*tasks, delete(current)])

    await retried(attempt)


def _check_demotion(view: Tables, raft: RaftPort, node: Node) -> None:
    managers = [other for other in view.nodes.values() if other.spec.role is NodeRole.MANAGER]
    if len(managers) <= 1:
        raise FailedPrecondition("attempting to demote the last manager of the swarm")
    if node.manager_status is not None:
        check_quorum_without(raft, node.manager_status.raft_id)


def check_quorum_without(raft: RaftPort, raft_id: int) -> None:
    """Refuse where the managers that are up would not be a majority of those that remain."""
    voters = {i: member for i, member in raft.members.items() if member.role is MemberRole.VOTER}
    if raft_id not in voters:
        return
    rest = [member for i, member in voters.items() if i != raft_id]
    if not rest:
        raise FailedPrecondition("attempting to demote the last manager of the swarm")
    if sum(member.is_active for member in rest) < len(rest) // 2 + 1:
        raise FailedPrecondition(
            "can't remove member from the raft: this would result in a loss of quorum; start the other managers first"
        )


def _check_removal(node: Node, *, force: bool) -> None:
    if node.manager_status is not None and not force:
        raise FailedPrecondition(
            f"node {node.id} is a cluster manager and is a member of the raft cluster. "
            "It must be demoted to worker before removal"
        )
    if not force and not _is_down(node):
        raise FailedPrecondition(f"node {node.id} is not down and can't be removed")


def _is_down(node: Node) -> bool:
    """Down, or never seen at all. After a change of leader a node that was seen may be unknown and well."""
    return node.status.state is NodeState.DOWN or is_unseen(node)


def is_unseen(node: Node) -> bool:
    """Whether the node has not opened a session yet, in which it would have described itself."""
    return node.status.state is NodeState.UNKNOWN and not node.description.engine_version


async def _leave_raft(raft: RaftPort, node: Node, raft_id: int) -> None:
    if raft_id == raft.raft_id:
        raise FailedPrecondition(f"node {node.id} leads the swarm: demote it before removal")
    check_quorum_without(raft, raft_id)
    await raft.remove_member(raft_id)
