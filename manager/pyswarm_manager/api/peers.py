"""The members of Raft as an operator sees them: each with its node. Pure."""

from __future__ import annotations

from pyswarm.v1 import operator_pb2 as pb
from pyswarm_common.model import Node
from pyswarm_manager.managers.count import zone_of
from pyswarm_manager.managers.quorum import Members, leaving
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.raft.inspection import RaftReport
from pyswarm_manager.raft.ports import MemberStatus
from pyswarm_manager.store.tables import Tables


def list_peers(view: Tables, members: Members, report: RaftReport) -> list[pb.RaftPeer]:
    """One for each member; what only a leader knows is empty when told by another."""
    nodes = {node.manager_status.raft_id: node for node in view.nodes.values() if node.manager_status is not None}
    going = leaving(view, members)
    return [
        _peer(raft_id, member, nodes.get(raft_id), report, is_leaving=raft_id in going)
        for raft_id, member in sorted(members.items())
    ]


def _peer(
    raft_id: int, member: MemberStatus, node: Node | None, report: RaftReport, *, is_leaving: bool
) -> pb.RaftPeer:
    peer = pb.RaftPeer(
        raft_id=raft_id,
        address=member.address,
        role=_role(member),
        reachable=member.is_active,
        match_index=member.match_index,
        lag=max(0, report.last_index - member.match_index) if member.match_index else 0,
        last_contact_s=report.last_contact_s.get(raft_id, 0.0),
        leaving=is_leaving,
    )
    if node is not None:
        peer.node_id, peer.hostname, peer.zone = node.id, node.description.hostname, zone_of(node)
    return peer


def _role(member: MemberStatus) -> pb.PeerRole.ValueType:
    if member.is_leader:
        return pb.PEER_ROLE_LEADER
    return pb.PEER_ROLE_VOTER if member.role is MemberRole.VOTER else pb.PEER_ROLE_LEARNER
