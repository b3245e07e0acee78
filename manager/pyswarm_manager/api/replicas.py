"""Comparing the replicas: the leader marks an index in the log, and asks every manager what it held there.

The mark is an ordinary entry, so writes go on before and after it. Whoever cannot be asked is named with the reason;
whether the digests agree is for the reader to see. Runs on the leader.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import grpc

from pyswarm.v1 import operator_pb2 as pb
from pyswarm.v1 import operator_pb2_grpc
from pyswarm_common.errors import PyswarmError
from pyswarm_common.identity import role_name
from pyswarm_common.model import Node, NodeRole
from pyswarm_common.rpc import error_from_rpc, open_channel
from pyswarm_manager.ports import IdentityProvider, RaftPort
from pyswarm_manager.raft.ports import MemberStatus
from pyswarm_manager.store.changes import Checkpoint
from pyswarm_manager.store.checkpoints import Checkpoints
from pyswarm_manager.writes import StorePort

DIGEST_TIMEOUT_S = 12.0
"""How long one manager may take: to catch up, and to read 100,000 objects on a busy machine."""


class ComparedStore(StorePort, Protocol):
    """What is needed of the store."""

    checkpoints: Checkpoints


async def check_replicas(store: ComparedStore, raft: RaftPort, identity: IdentityProvider) -> pb.CheckReplicasResponse:
    """What every manager held at one index. Raises if this manager cannot mark one, since it does not lead."""
    index = await store.propose([Checkpoint()])
    nodes = {node.manager_status.raft_id: node for node in store.view.nodes.values() if node.manager_status is not None}
    asked = [
        _ask(raft_id, member, nodes.get(raft_id), index, store, raft, identity)
        for raft_id, member in sorted(raft.members.items())
    ]
    return pb.CheckReplicasResponse(index=index, replicas=await asyncio.gather(*asked))


async def _ask(
    raft_id: int,
    member: MemberStatus,
    node: Node | None,
    index: int,
    store: ComparedStore,
    raft: RaftPort,
    identity: IdentityProvider,
) -> pb.Replica:
    replica = pb.Replica(address=member.address)
    if node is not None:
        replica.node_id, replica.hostname = node.id, node.description.hostname
    try:
        if raft_id == raft.raft_id:
            replica.digest = await store.checkpoints.digest_at(index)
        elif not member.is_active:
            replica.error = "unreachable"
        else:
            replica.digest = await _ask_other(member.address, index, identity)
    except PyswarmError as error:
        replica.error = str(error)
    return replica


async def _ask_other(address: str, index: int, identity: IdentityProvider) -> str:
    async with open_channel(address, identity(), role_name(NodeRole.MANAGER)) as channel:
        stub: Any = operator_pb2_grpc.OperatorStub(channel)
        try:
            answer = await stub.GetDigest(pb.GetDigestRequest(index=index), timeout=DIGEST_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return str(answer.digest)
