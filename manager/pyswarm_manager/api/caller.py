"""Who a call is from, also when another manager forwarded it, and whether that node is still one of ours.

A forwarded call carries who asked first in its metadata. That is believed only of a manager, whose certificate already
lets it do everything a forwarded caller could; anybody else's metadata is never read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import grpc

from pyswarm_common.errors import Forbidden
from pyswarm_common.model import Node, NodeRole
from pyswarm_common.rpc import Caller, Peer, peer_of

FORWARDED_BY = "pyswarm-forwarded-by"
CALLER_KIND = "pyswarm-caller"
CALLER_NODE = "pyswarm-caller-node"
CALLER_NAME = "pyswarm-caller-name"
CALLER_CREDENTIAL = "pyswarm-caller-credential"
CALLER_FINGERPRINT = "pyswarm-caller-fingerprint"
CALLER_ADDRESS = "pyswarm-caller-address"
ANYONE_PEER = Peer(Caller.ANYONE)

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = tuple[tuple[str, str], ...]


def forwarded_by(context: Context) -> str:
    """The manager that passed this call on; empty if the caller asked here."""
    return _metadata(context).get(FORWARDED_BY, "") if peer_of(context).caller is Caller.MANAGER else ""


def caller_of(context: Context) -> Peer:
    """Who asked first."""
    peer = peer_of(context)
    if peer.caller is Caller.LOCAL:
        return peer
    if peer.caller is not Caller.MANAGER:
        return peer if peer.address else replace(peer, address=address_of(context.peer()))
    metadata = _metadata(context)
    if FORWARDED_BY not in metadata:
        return replace(peer, address=address_of(context.peer()))
    try:
        kind = Caller(metadata.get(CALLER_KIND, ""))
    except ValueError as error:
        raise Forbidden("the forwarded call does not say who asked: upgrade that manager") from error
    return Peer(
        kind,
        metadata.get(CALLER_NODE, ""),
        peer.cluster_id,
        name=metadata.get(CALLER_NAME, ""),
        credential_id=metadata.get(CALLER_CREDENTIAL, ""),
        fingerprint=metadata.get(CALLER_FINGERPRINT, ""),
        address=metadata.get(CALLER_ADDRESS, ""),
    )


def forwarding_metadata(caller: Peer, own_node_id: str) -> Metadata:
    """What a forwarded call carries, so that the leader knows who asked and never forwards it again."""
    pairs = (
        (FORWARDED_BY, own_node_id),
        (CALLER_KIND, caller.caller.value),
        (CALLER_NODE, caller.node_id),
        (CALLER_NAME, caller.name),
        (CALLER_CREDENTIAL, caller.credential_id),
        (CALLER_FINGERPRINT, caller.fingerprint),
        (CALLER_ADDRESS, caller.address),
    )
    return tuple((key, value) for key, value in pairs if value)


def address_of(peer: str) -> str:
    """The address in gRPC's name of a peer: "ipv4:10.0.0.1:4711", "ipv6:%5B::1%5D:4711"."""
    kind, _, rest = peer.partition(":")
    host = unquote(rest).rpartition(":")[0]
    return host.strip("[]") if kind in ("ipv4", "ipv6") else ""


def is_admin(peer: Peer) -> bool:
    """Whether the caller may see what lets machines and people in. A manager holds all of it."""
    return peer.caller in (Caller.LOCAL, Caller.ADMIN, Caller.MANAGER)


def require_manager(peer: Peer, nodes: Mapping[str, Node]) -> None:
    """Refuse a manager's certificate whose node was removed or demoted: it is valid until it expires."""
    if peer.caller is not Caller.MANAGER:
        return
    node = nodes.get(peer.node_id)
    if node is None or node.role is not NodeRole.MANAGER:
        raise Forbidden(f"node {peer.node_id} is not a manager of this swarm any more")


def _metadata(context: Context) -> dict[str, str]:
    pairs: Any = context.invocation_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str)}
