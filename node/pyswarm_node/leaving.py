"""Why a manager does not leave just so: what the swarm would be left with, in docker's words and in numbers.

Pure but for the one question to the manager on this machine. Decides nothing: with `--force` the node leaves whatever
is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc

from pyswarm.v1 import operator_pb2 as pb
from pyswarm.v1 import operator_pb2_grpc
from pyswarm_common.errors import PyswarmError

_TIMEOUT_S = 3.0
_A_MANAGER = "You are attempting to leave the swarm on a node that is participating as a manager. "
_LAST = "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
_UNKNOWN = "Doing so may lose the consensus of your swarm. "
_LOST = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
    "Use `--force` to suppress this message."
)


async def ask_why_not(channel: Callable[[], grpc.aio.Channel], node_id: str) -> str:
    """The refusal, by what the leader says of the managers now."""
    try:
        stub = operator_pb2_grpc.OperatorStub(channel())
        found = await stub.ListPeers(pb.ListPeersRequest(), timeout=_TIMEOUT_S)
    except (grpc.aio.AioRpcError, PyswarmError):  # no leader, or no manager that could be asked
        return _A_MANAGER + _UNKNOWN + _LOST
    return why_not(found.peers, node_id)


def why_not(peers: Sequence[pb.RaftPeer], node_id: str) -> str:
    """The refusal. Managers that catch up or are demoted already do not count."""
    voters = [peer for peer in peers if peer.role != pb.PEER_ROLE_LEARNER and not peer.leaving]
    rest = [peer for peer in voters if peer.node_id != node_id]
    if not rest:
        return _A_MANAGER + _LAST
    reachable = sum(peer.reachable for peer in rest)
    counted = f"Removing this node leaves {reachable} of {len(rest)} managers reachable"
    if reachable >= len(rest) // 2 + 1:
        advice = "demote it first with `pyswarm node demote`. Use `--force` to suppress this message."
        return f"{_A_MANAGER}{counted}: {advice}"
    silent = ", ".join(peer.hostname or peer.address for peer in rest if not peer.reachable)
    lost = f", and {len(rest) // 2 + 1} must be. Without a Raft quorum your swarm will be inaccessible: "
    return f"{_A_MANAGER}{counted}{lost}start {silent} first. {_LOST}"
