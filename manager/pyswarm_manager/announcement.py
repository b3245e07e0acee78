"""One manager's whereabouts as a signed message: made by the node's key, believed by its certificate alone.

So that any manager may pass on where another is, the signature counts and not who brings it; the highest sequence of a
node counts, so an old announcement cannot take it back. Parses what comes from outside: everything is bounded, and
every failure is an InvalidArgument. Whether the node has that raft id is the caller's question to the store.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pyswarm.v1 import raft_pb2 as pb
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.identity.verification import certified_node, sign
from pyswarm_common.model import NodeRole
from pyswarm_manager.config import split_address

CONTEXT = b"pyswarm whereabouts"
MAX_BODY_BYTES = 8 * 1024
MAX_SEEDS = 16
_MAX_ADDRESS = 300
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a manager said of itself."""

    node_id: str
    raft_id: int
    address: str
    sequence: int
    seeds: tuple[str, ...]
    message: pb.RaftAnnouncement
    """As it was signed, to be passed on."""


def announce(identity: NodeIdentity, raft_id: int, address: str, sequence: int, seeds: tuple[str, ...]) -> Announcement:
    """This node's own."""
    whereabouts = pb.RaftWhereabouts(
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        raft_id=raft_id,
        address=address,
        sequence=sequence,
        seeds=seeds[:MAX_SEEDS],
    )
    body = whereabouts.SerializeToString()
    message = pb.RaftAnnouncement(
        body=body, certificate=identity.cert_pem, signature=sign(identity.key_pem, CONTEXT, body)
    )
    return Announcement(identity.node_id, raft_id, address, sequence, tuple(whereabouts.seeds), message)


def verified(message: pb.RaftAnnouncement, identity: NodeIdentity, now: float | None) -> Announcement:
    """Believe it, or raise InvalidArgument. `identity` gives the roots and the cluster; `now` None: the certificate may
    have expired since the announcement was first believed."""
    if len(message.body) > MAX_BODY_BYTES:
        raise InvalidArgument("the announcement is too large")
    node = certified_node(message.certificate, identity.root_cert_pem, now)
    node.check_signature(message.signature, CONTEXT, message.body)
    try:
        said = pb.RaftWhereabouts.FromString(message.body)
    except DecodeError as error:
        raise InvalidArgument("the announcement cannot be read") from error
    if node.role is not NodeRole.MANAGER or said.node_id != node.node_id:
        raise InvalidArgument("the announcement is not of the manager that signed it")
    if not said.cluster_id == node.cluster_id == identity.cluster_id:
        raise InvalidArgument("the announcement is of another cluster")
    if not 0 < said.raft_id < 1 << 63 or len(said.seeds) > MAX_SEEDS:
        raise InvalidArgument("the announcement names no manager")
    _check_address(said.address, named=False)
    for seed in said.seeds:
        _check_address(seed, named=True)
    return Announcement(node.node_id, said.raft_id, said.address, said.sequence, tuple(said.seeds), message)


def _check_address(address: str, *, named: bool) -> None:
    host, _ = split_address(address[: _MAX_ADDRESS + 1])
    if len(address) > _MAX_ADDRESS or _HOST.fullmatch(host) is None:
        raise InvalidArgument("invalid address in an announcement")
    if named:
        return
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise InvalidArgument("an announced address must be an IP address") from error
