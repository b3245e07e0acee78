"""Issuing node certificates: to machines that hold a join token, and again to nodes of the cluster.

Decides who gets a certificate and with which role; the Node object is committed before its certificate is given away.
A node's id follows from its key, so a machine that asks again (because an answer was lost) stays one node. Runs on the
leader; never gives a removed node anything. The node opens its session next, and only then do its certificate's issuer
and expiry count (`ca.certificates`). What a token allows is decided by `ca.tokens`, which CA signs by `trust`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re

from cryptography.hazmat.primitives import serialization
from msgspec.structs import replace

from pyswarm.v1 import ca_pb2, types_pb2
from pyswarm_common.addresses import is_host_address
from pyswarm_common.errors import (
    AlreadyExists,
    Forbidden,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    Unauthenticated,
    Unavailable,
)
from pyswarm_common.identity.authority import public_key_of_csr
from pyswarm_common.identity.verification import key_digest
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import (
    Availability,
    CertificateStatus,
    Cluster,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
)
from pyswarm_common.rpc import Peer
from pyswarm_manager.api.validate import refuse
from pyswarm_manager.ca.data_path import require_common_family
from pyswarm_manager.ca.tokens import Grant, grant_of, used_once
from pyswarm_manager.removed import require_present
from pyswarm_manager.store.changes import Change, Create, Update
from pyswarm_manager.trust import signing_authority, trusted_roots
from pyswarm_manager.writes import Writer, cluster_of, retried

MAX_CSR_BYTES = 16 * 1024
KEPT_KEYS = 2
"""The present key of a node, and the one before: the answer with the present certificate may have been lost."""
_HOSTNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


async def issue(
    writer: Writer, request: ca_pb2.IssueCertificateRequest, turns: asyncio.Lock
) -> ca_pb2.IssueCertificateResponse:
    """A certificate for the key in the request, by the role of the token. Uses are counted one at a time (`turns`)."""
    grant = grant_of(writer.store.view, cluster_of(writer), request.token)
    _check_machine(request)
    node_id = id_of_key(request.csr)
    signing_authority(cluster_of(writer))  # refuse before anything is committed
    async with turns if grant.limited is not None else contextlib.nullcontext():
        await retried(lambda: _admit(writer, request, node_id, grant))
    cluster = cluster_of(writer)
    certificate = sign(cluster, request.csr, node_id, grant.role, writer.clock())
    return ca_pb2.IssueCertificateResponse(
        node_id=node_id,
        cluster_id=cluster.id,
        role=types_pb2.NodeRole.ValueType(grant.role),
        certificate=certificate,
        root_ca_cert=trusted_roots(cluster),
        manager_addresses=[member.address for member in writer.raft.members.values()],
    )


async def _admit(writer: Writer, request: ca_pb2.IssueCertificateRequest, node_id: str, grant: Grant) -> None:
    """Make the Node, and count the token's use with it. Whoever holds a node's key is that node, asking again."""
    view = writer.store.view
    require_present(view, node_id)
    known = view.nodes.get(node_id)
    if known is not None:
        if grant.role not in (known.role, known.spec.role):
            raise AlreadyExists(f"this machine is already part of the swarm as node {node_id}, with another role")
        return
    if request.data_path_address:
        require_common_family(request.data_path_address, view.nodes.values())
    changes: list[Change] = [Create(_new_node(request, node_id, grant.role, writer))]
    if grant.limited is not None:
        limited = view.join_tokens.get(grant.limited.id)
        if limited is None:
            raise Unauthenticated("this join token was removed: ask a manager for another one")
        used = used_once(limited, writer.clock())
        changes += [Update(used)] if used is not limited else []
    try:
        await writer.store.propose(changes)
    except (AlreadyExists, NotFound):  # the same machine asked twice at once, or the token went: look again
        raise OutOfSequence(f"node {node_id} or its token changed meanwhile") from None


async def renew(writer: Writer, csr: bytes, caller: Peer) -> ca_pb2.RenewCertificateResponse:
    """A new certificate for the calling node, by the role the cluster wants of it; commits a promotion."""
    if len(csr) > MAX_CSR_BYTES:
        raise InvalidArgument("the certificate signing request is too large")
    digest = key_digest(public_key_of_csr(csr))

    async def attempt() -> NodeRole:
        node = member_node(writer, caller)
        if node.spec.role is NodeRole.WORKER and node.role is NodeRole.MANAGER:
            raise Unavailable(f"node {node.id} is being demoted: ask again once it has left the managers")
        certified = with_key(replace(node, role=node.spec.role), digest)
        if certified != node:
            await writer.store.propose([Update(certified)])
        return node.spec.role

    role = await retried(attempt)
    cluster = cluster_of(writer)
    certificate = sign(cluster, csr, caller.node_id, role, writer.clock())
    return ca_pb2.RenewCertificateResponse(
        role=types_pb2.NodeRole.ValueType(role), certificate=certificate, root_ca_cert=trusted_roots(cluster)
    )


def with_key(node: Node, digest: str) -> Node:
    """The node as one that is certified for that key from now on."""
    if node.key_digests[:1] == (digest,):
        return node
    others = [other for other in node.key_digests if other != digest]
    return replace(node, key_digests=(digest, *others)[:KEPT_KEYS])


def member_node(writer: Writer, caller: Peer) -> Node:
    """The calling node's object. A certificate outlives the removal of its node; this is where it ends."""
    require_present(writer.store.view, caller.node_id)
    node = writer.store.view.nodes.get(caller.node_id)
    if node is None:
        raise Forbidden(f"node {caller.node_id} was removed from the swarm: leave, then join again")
    return node


def sign(cluster: Cluster, csr: bytes, node_id: str, role: NodeRole, now: float) -> bytes:
    """By the CA of the moment; no certificate outlives the one that signs it."""
    authority = signing_authority(cluster)
    signer_ends_at = authority.signing_certificate.not_valid_after_utc.timestamp()
    lifetime_s = min(cluster.spec.node_cert_expiry_s, signer_ends_at - now)
    try:
        return authority.issue(csr, node_id=node_id, cluster_id=cluster.id, role=role, now=now, lifetime_s=lifetime_s)
    except ValueError as error:
        raise InvalidArgument("the certificate signing request cannot be used") from error


def id_of_key(csr: bytes) -> str:
    """The node id that belongs to the request's key, whose private half the requester has proved to hold."""
    if len(csr) > MAX_CSR_BYTES:
        raise InvalidArgument("the certificate signing request is too large")
    try:
        key = public_key_of_csr(csr)
    except InvalidArgument:
        raise
    except Exception as error:  # the X.509 parser raises many things for many kinds of rubbish
        raise InvalidArgument("not a certificate signing request in PEM form") from error
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return id_from_bits(int.from_bytes(hashlib.sha256(der).digest()[:16], "big"))


def _check_machine(request: ca_pb2.IssueCertificateRequest) -> None:
    violations = []
    if _HOSTNAME.fullmatch(request.hostname) is None:
        violations.append(("hostname", f"invalid host name {request.hostname[:64]!r}"))
    for field, address in (("address", request.address), ("data_path_address", request.data_path_address)):
        if address and not is_host_address(address):
            violations.append((field, f"{address[:64]!r} is not an IP address"))
    if int(request.availability) not in {int(known) for known in Availability}:
        violations.append(("availability", "availability must be active, pause or drain"))
    refuse(violations)


def _new_node(request: ca_pb2.IssueCertificateRequest, node_id: str, role: NodeRole, writer: Writer) -> Node:
    cluster, now = cluster_of(writer), writer.clock()
    return Node(
        id=node_id,
        spec=NodeSpec(role=role, availability=Availability(request.availability)),
        description=NodeDescription(hostname=request.hostname, data_path_address=request.data_path_address),
        status=NodeStatus(
            state=NodeState.UNKNOWN,
            message="waiting for its first session",
            address=request.address,
            changed_at=now,
        ),
        role=role,
        key_digests=(key_digest(public_key_of_csr(request.csr)),),
        certificate=CertificateStatus(
            issuer=signing_authority(cluster).issuer, expires_at=now + cluster.spec.node_cert_expiry_s
        ),
    )
