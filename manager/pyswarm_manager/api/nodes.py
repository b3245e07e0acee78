"""Writes of nodes, on the leader: labels, availability, the role wanted, and removal.

A demotion is allowed or refused here (by `managers.quorum`) and nowhere else: on the leader, one at a time, by what is
committed. The roles loop (`ca.roles`) carries it out, and the node itself fetches its new certificate.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.errors import FailedPrecondition, Forbidden
from pyswarm_common.model import Node, NodeRole, NodeSpec, NodeState
from pyswarm_manager.api.validate import check_node_spec, decode, refuse
from pyswarm_manager.managers.quorum import check_demotion, check_step
from pyswarm_manager.removed import removal
from pyswarm_manager.store.changes import Change, Delete, Update
from pyswarm_manager.store.lookup import find_node
from pyswarm_manager.store.tables import Kind
from pyswarm_manager.writes import Writer, check_read_version, retried


async def update_node(writer: Writer, request: control_pb2.UpdateNodeRequest, *, may_change_role: bool) -> Node:
    spec = decode(NodeSpec, request.spec)
    refuse(check_node_spec(spec))

    async def attempt() -> Node:
        view = writer.store.view
        node = find_node(view, request.node_id)
        # What the dispatcher and the planner write of a node moves its version too, and contradicts no user.
        check_read_version("node", node.id, view.node_specs[node.id], request.version, node.meta.version)
        if spec.role is not node.spec.role and not may_change_role:
            raise Forbidden("an operator may not change a node's role: ask an admin")
        is_demotion = node.spec.role is NodeRole.MANAGER and spec.role is NodeRole.WORKER
        if is_demotion:
            await writer.raft.hear_members()
            check_demotion(writer.store.view, writer.raft.members, node, force=request.force)
        is_forced = spec.role is NodeRole.WORKER and (request.force if is_demotion else node.demotion_forced)
        changed = replace(node, spec=spec, demotion_forced=is_forced)
        await writer.store.propose([Update(changed)])
        return writer.store.view.nodes.get(node.id, changed)

    async with writer.manager_changes:
        return await retried(attempt)


async def remove_node(writer: Writer, request: control_pb2.RemoveNodeRequest) -> None:
    async def attempt() -> None:
        node = find_node(writer.store.view, request.node)
        _check_removal(node, force=request.force)
        if node.manager_status is not None and node.manager_status.raft_id in writer.raft.members:
            await _leave_raft(writer, node, node.manager_status.raft_id)
        view = writer.store.view
        current = view.nodes.get(node.id)
        if current is None:
            return
        tasks: list[Change] = [Delete(Kind.TASK, task.id) for task in view.tasks_on(node.id)]
        await writer.store.propose([*tasks, *removal(view, current, writer.clock())])

    await retried(attempt)


def _check_removal(node: Node, *, force: bool) -> None:
    if node.spec.role is NodeRole.MANAGER:
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


async def _leave_raft(writer: Writer, node: Node, raft_id: int) -> None:
    """Its demotion is committed, and not done yet."""
    async with writer.manager_changes:
        if raft_id == writer.raft.raft_id:
            raise FailedPrecondition(f"node {node.id} still leads the swarm: it hands over, try again in a moment")
        check_step(writer.store.view, writer.raft.members, raft_id, force=node.demotion_forced)
        await writer.raft.remove_member(raft_id, force=node.demotion_forced)
