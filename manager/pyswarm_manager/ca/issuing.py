"""Issuing node certificates: to machines that hold a join token, and again to nodes of the cluster.

Decides who gets a certificate and with which role; the Node object is committed before its certificate is given away.
A node's id follows from its key, so a machine that asks again (because an answer was lost) stays one node. Runs on the
leader; never gives a removed node anything. The node opens its session next.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

from cryptography.hazmat.primitives import serialization
from msgspec.structs import replace

from pyswarm.v1 import ca_pb2, types_pb2
from pyswarm_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    OutOfSequence,
    Unauthenticated,
    Unavailable,
)
from pyswarm_common.identity import JoinToken, RootAuthority, root_digest
from pyswarm_common.identity.authority import public_key_of_csr
from pyswarm_common.ids import id_from_bits
from pyswarm_common.model import (
    Availability,
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
from pyswarm_manager.api.writes import Writer, retried
from pyswarm_manager.store.changes import Create, Update

MAX_CSR_BYTES = 16 * 1024
_REFUSED = "invalid join token: ask a manager for the present one with `pyswarm join-token worker` (or manager)"
_HOSTNAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


def cluster_of(writer: Writer) -> Cluster:
    cluster = writer.store.view.cluster
    if cluster is None:
        raise Unavailable("this manager does not know its swarm yet: try again in a moment")
    return cluster


def role_by_token(cluster: Cluster, text: str) -> NodeRole:
    """The role that the token gives. Compares in constant time, whatever part is wrong."""
    token = JoinToken.parse(text)
    if token.digest != root_digest(cluster.root_ca_cert):
        raise InvalidArgument("the join token belongs to another cluster: its digest is not that of this root")
    tokens = cluster.join_tokens
    is_worker = token.matches(JoinToken.parse(tokens.worker))
    is_manager = token.matches(JoinToken.parse(tokens.manager))
    if is_manager:
        return NodeRole.MANAGER
    if is_worker:
        return NodeRole.WORKER
    raise Unauthenticated(_REFUSED)


async def issue(writer: Writer, request: ca_pb2.IssueCertificateRequest) -> ca_pb2.IssueCertificateResponse:
    """A certificate for the key in the request, by the role of the token."""
    cluster = cluster_of(writer)
    role = role_by_token(cluster, request.token)
    _check_machine(request)
    node_id = id_of_key(request.csr)
    certificate = sign(cluster, request.csr, node_id, role, writer.clock())

    async def attempt() -> None:
        known = writer.store.view.nodes.get(node_id)
        if known is not None and role not in (known.role, known.spec.role):
            raise AlreadyExists(f"this machine is already part of the swarm as node {node_id}, with another role")
        if known is None:
            await _create(writer, _new_node(request, node_id, role, writer.clock()))

    await retried(attempt)
    return ca_pb2.IssueCertificateResponse(
        node_id=node_id,
        cluster_id=cluster.id,
        role=types_pb2.NodeRole.ValueType(role),
        certificate=certificate,
        root_ca_cert=cluster.root_ca_cert,
        manager_addresses=[member.address for member in writer.raft.members.values()],
    )


async def renew(writer: Writer, csr: bytes, caller: Peer) -> ca_pb2.RenewCertificateResponse:
    """A new certificate for the calling node, by the role the cluster wants of it; commits a promotion."""
    cluster = cluster_of(writer)
    if len(csr) > MAX_CSR_BYTES:
        raise InvalidArgument("the certificate signing request is too large")

    async def attempt() -> NodeRole:
        node = member_node(writer, caller)
        if node.spec.role is NodeRole.WORKER and node.role is NodeRole.MANAGER:
            raise Unavailable(f"node {node.id} is being demoted: ask again once it has left the managers")
        if node.spec.role is not node.role:
            await writer.store.propose([Update(replace(node, role=node.spec.role))])
        return node.spec.role

    role = await retried(attempt)
    certificate = sign(cluster, csr, caller.node_id, role, writer.clock())
    return ca_pb2.RenewCertificateResponse(
        role=types_pb2.NodeRole.ValueType(role), certificate=certificate, root_ca_cert=cluster.root_ca_cert
    )


def member_node(writer: Writer, caller: Peer) -> Node:
    """The calling node's object. A certificate outlives the removal of its node; this is where it ends."""
    node = writer.store.view.nodes.get(caller.node_id)
    if node is None:
        raise Forbidden(f"node {caller.node_id} was removed from the swarm: leave, then join again")
    return node


def sign(cluster: Cluster, csr: bytes, node_id: str, role: NodeRole, now: float) -> bytes:
    if not cluster.root_ca_key:
        raise FailedPrecondition("this cluster's root key is kept elsewhere: no certificate can be issued here")
    authority = RootAuthority(cluster.root_ca_cert, cluster.root_ca_key)
    lifetime_s = cluster.spec.node_cert_expiry_s
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
    if request.address and not _is_address(request.address):
        violations.append(("address", f"{request.address[:64]!r} is not an IP address"))
    if int(request.availability) not in {int(known) for known in Availability}:
        violations.append(("availability", "availability must be active, pause or drain"))
    refuse(violations)


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not address.is_unspecified


def _new_node(request: ca_pb2.IssueCertificateRequest, node_id: str, role: NodeRole, now: float) -> Node:
    return Node(
        id=node_id,
        spec=NodeSpec(role=role, availability=Availability(request.availability)),
        description=NodeDescription(hostname=request.hostname),
        status=NodeStatus(
            state=NodeState.UNKNOWN,
            message="waiting for its first session",
            address=request.address,
            changed_at=now,
        ),
        role=role,
    )


async def _create(writer: Writer, node: Node) -> None:
    try:
        await writer.store.propose([Create(node)])
    except AlreadyExists:  # the same machine asked twice at once: look at what the other request made
        raise OutOfSequence(f"node {node.id} appeared meanwhile") from None
