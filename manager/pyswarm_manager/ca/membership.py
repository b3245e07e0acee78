"""Managers' membership in Raft, and leaving: what a node asks for itself. Runs on the leader.

Decides who may become a member. The order is always: first the intent in the Node object (`manager_status`), then Raft;
so a member of Raft that no node claims is a leftover, and the roles loop (`ca.roles`) removes it.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm.v1 import ca_pb2
from pyswarm_common.errors import AlreadyExists, FailedPrecondition, Forbidden, InvalidArgument, Unavailable
from pyswarm_common.model import CertificateStatus, ManagerStatus, Node, NodeRole, NodeState, NodeStatus
from pyswarm_common.rpc import Peer
from pyswarm_manager.api.nodes import is_unseen
from pyswarm_manager.ca.issuing import member_node
from pyswarm_manager.managers.quorum import rest_without
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.removed import remembered, removal
from pyswarm_manager.store.changes import Update
from pyswarm_manager.writes import Writer, cluster_of, retried

MAX_RAFT_ID = 1 << 63
LEAVE_REFUSED = (
    "You are attempting to leave the swarm on a node that is participating as a manager. "
    "The only way to leave is to demote it first, or to use `--force`."
)


async def join_raft(writer: Writer, request: ca_pb2.JoinRaftRequest, caller: Peer) -> ca_pb2.JoinRaftResponse:
    """Make the calling node a member; asking again changes nothing. Who was removed before it had heard of its own
    joining comes back under another raft id, if it is still wanted then."""
    cluster = cluster_of(writer)
    _check_request(writer, request, caller)
    if writer.raft.is_removed(request.raft_id) or _has_forgotten(writer, request):
        return ca_pb2.JoinRaftResponse(cluster_id=cluster.id, needs_new_raft_id=True)
    stale = await retried(lambda: _claim(writer, request, caller))
    if stale is not None and stale in writer.raft.members:
        # The node lost its state directory, so its old membership will never answer again.
        await writer.raft.remove_member(stale)
    member = writer.raft.members.get(request.raft_id)
    if member is None:
        await writer.raft.add_member(request.raft_id, request.address)
    elif member.address != request.address:
        await writer.raft.update_address(request.raft_id, request.address)
    members = {raft_id: status.address for raft_id, status in writer.raft.members.items()}
    return ca_pb2.JoinRaftResponse(members=members, cluster_id=cluster.id)


def _has_forgotten(writer: Writer, request: ca_pb2.JoinRaftRequest) -> bool:
    """A member that votes asks to be let in: it does not know any more that it is one, nor what it promised. Who only
    missed our answer has the log that made it a voter."""
    member = writer.raft.members.get(request.raft_id)
    if member is None or member.role is not MemberRole.VOTER:
        return False
    return request.last_index == 0 or request.last_index < member.match_index


def _check_request(writer: Writer, request: ca_pb2.JoinRaftRequest, caller: Peer) -> None:
    if not 0 < request.raft_id < MAX_RAFT_ID:
        raise InvalidArgument("invalid raft id", [("raft_id", "must be a positive number of at most 63 bits")])
    host, _, port = request.address.rpartition(":")
    if not host or len(request.address) > 300 or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidArgument("invalid manager address", [("address", "must have the form host:port")])
    for node in writer.store.view.nodes.values():
        status = node.manager_status
        if status is not None and status.raft_id == request.raft_id and node.id != caller.node_id:
            raise AlreadyExists("the raft id belongs to another manager: join with a fresh state directory")


async def _claim(writer: Writer, request: ca_pb2.JoinRaftRequest, caller: Peer) -> int | None:
    """Write the membership into the node; returns the raft id it had before, if that was another."""
    node = member_node(writer, caller)
    if node.spec.role is not NodeRole.MANAGER or node.role is not NodeRole.MANAGER:
        raise Forbidden(f"node {node.id} is not to be a manager: promote it first")
    old = node.manager_status
    wanted = ManagerStatus(raft_id=request.raft_id, address=request.address)
    if old != wanted:
        await writer.store.propose([Update(replace(node, manager_status=wanted))])
    return old.raft_id if old is not None and old.raft_id != request.raft_id else None


async def leave(writer: Writer, request: ca_pb2.LeaveRequest, caller: Peer) -> ca_pb2.LeaveResponse:
    """Take the calling node out: of Raft if it is a manager, then it is down (gone, if it never opened a session)."""
    node = member_node(writer, caller)
    status = node.manager_status
    if (status is not None or node.role is NodeRole.MANAGER) and not request.force:
        raise FailedPrecondition(LEAVE_REFUSED)
    if status is not None and status.raft_id in writer.raft.members:
        if len(writer.raft.members) == 1:
            return ca_pb2.LeaveResponse()  # the swarm ends with its last manager: there is nobody to remember
        if status.raft_id == writer.raft.raft_id:
            raise Unavailable("this manager leads again: try again, and it will hand over first")
        async with writer.manager_changes:
            # The node goes whatever we say. Where that costs the majority, its removal could not be committed: then it
            # only stops being wanted, and leaves Raft when the others are back (`ca.roles`).
            if rest_without(writer.raft.members, {status.raft_id}).is_safe:
                await writer.raft.remove_member(status.raft_id)
    await retried(lambda: _mark_left(writer, caller))
    return ca_pb2.LeaveResponse()


async def _mark_left(writer: Writer, caller: Peer) -> None:
    node = member_node(writer, caller)
    if is_unseen(node):  # its joining failed half way: nothing is left of it
        await writer.store.propose(removal(writer.store.view, node, writer.clock()))
        return
    now = writer.clock()
    await writer.store.propose([Update(_left(node, now)), *remembered(writer.store.view, node, now)])


def _left(node: Node, now: float) -> Node:
    status = NodeStatus(state=NodeState.DOWN, message="left the swarm", address=node.status.address, changed_at=now)
    spec = replace(node.spec, role=NodeRole.WORKER)
    void = CertificateStatus(is_void=True)
    return replace(node, spec=spec, role=NodeRole.WORKER, manager_status=None, status=status, certificate=void)
