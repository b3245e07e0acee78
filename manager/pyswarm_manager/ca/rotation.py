"""Replacing the root while everything runs. Pure: what is to be changed next, given the objects as they are.

`begin` puts the new root, certified by the old one, into the cluster object. From then on new certificates are signed
by the new root and carry that bridge, and every node is told to trust both. Nodes are asked for new certificates a
few at a time; one counts as rotated when it has opened a session with its new certificate, so a lost answer loses
nothing. When all have, the old root goes. Everything is in the objects: a new leader goes on where the old one was.

A node that is down keeps the rotation open: its certificate is of the old root, and must stay good. Removing the node
ends that. A second rotation replaces the target: the certificates of the first one lead to the old root by their
bridge.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pyswarm.v1 import security_pb2, types_pb2
from pyswarm_common.codec import set_timestamp
from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.identity import RootAuthority, read_authority, root_digest
from pyswarm_common.identity.roots import check_bridge
from pyswarm_common.model import Cluster, JoinTokens, Node, NodeRole, NodeState, RootRotation
from pyswarm_manager.ca.tokens import renewed_tokens
from pyswarm_manager.store.changes import Change, Update, delete
from pyswarm_manager.store.recording import describe
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.trust import present_authority, signing_authority
from pyswarm_manager.writes import Writer, retried

BATCH = 30
"""Nodes that may be fetching new certificates at once."""
MAX_WAITING = 100


def new_target(cluster: Cluster, cert_pem: bytes, key_pem: bytes, now: float) -> RootAuthority:
    """The root to go to: the operator's, or a generated one. Raises InvalidArgument if it is not sound."""
    present = present_authority(cluster)
    if not present.key_pem:
        raise FailedPrecondition("this cluster's root key is kept elsewhere: it cannot certify another root")
    if not cert_pem and not key_pem:
        return RootAuthority.create(cluster.id, now)
    target = read_authority(cert_pem, key_pem, now)
    check_bridge(present, target)
    return target


def begun(cluster: Cluster, target: RootAuthority, now: float) -> Cluster:
    """The cluster with the rotation under way."""
    rotation = RootRotation(
        root_ca_cert=target.cert_pem,
        root_ca_key=target.key_pem,
        root_ca_chain=target.chain_pem,
        cross_signed_cert=present_authority(cluster).cross_sign(target.cert_pem, now),
        started_at=now,
    )
    return replace(cluster, root_rotation=rotation)


async def begin(writer: Writer, request: security_pb2.RotateRootRequest) -> None:
    async def attempt() -> None:
        cluster = writer.store.view.cluster
        assert cluster is not None, "the servicer has looked"
        now = writer.clock()
        rotation = cluster.root_rotation
        target = new_target(cluster, request.ca_cert, request.ca_key, now)
        if rotation is not None and rotation.root_ca_cert == target.cert_pem:
            return  # asked again for what is under way
        describe(f"the root is to be replaced by {'a CA of the operator' if request.ca_cert else 'a generated one'}")
        await writer.store.propose([Update(begun(cluster, target, now))])

    await retried(attempt)


def next_changes(view: Tables) -> list[Change]:
    """What is to be committed next, if anything: nodes to be asked, or the end of the rotation."""
    cluster = view.cluster
    if cluster is None or cluster.root_rotation is None:
        return []
    issuer = signing_authority(cluster).issuer
    waiting = list(waiting_nodes(view, issuer))
    if not waiting:
        return _finished(view, cluster, cluster.root_rotation)
    ready = [node for node in waiting if node.status.state is NodeState.READY]
    room = BATCH - sum(node.certificate.renew_from == issuer for node in ready)
    unasked = [node for node in ready if node.certificate.renew_from != issuer]
    unasked.sort(key=lambda node: node.role is not NodeRole.MANAGER)  # first those at which machines join
    asked = unasked[: max(0, room)]
    return [Update(replace(node, certificate=replace(node.certificate, renew_from=issuer))) for node in asked]


def waiting_nodes(view: Tables, issuer: str) -> Iterator[Node]:
    """Nodes whose certificate is not that CA's."""
    return (node for node in view.nodes.values() if not node.certificate.is_void and node.certificate.issuer != issuer)


def _finished(view: Tables, cluster: Cluster, rotation: RootRotation) -> list[Change]:
    """The old root goes, and the tokens that name it."""
    worker, manager = renewed_tokens(cluster, rotation.root_ca_cert)
    done = replace(
        cluster,
        root_ca_cert=rotation.root_ca_cert,
        root_ca_key=rotation.root_ca_key,
        root_ca_chain=rotation.root_ca_chain,
        root_rotation=None,
        join_tokens=JoinTokens(worker=worker, manager=manager),
    )
    digest = root_digest(rotation.root_ca_cert)
    stale = [delete(limited) for limited in view.join_tokens.values() if limited.root_digest != digest]
    return [Update(done), *stale]


def status(view: Tables, cluster: Cluster) -> security_pb2.RootStatus:
    """How far it is."""
    rotation = cluster.root_rotation
    message = security_pb2.RootStatus(root_ca_cert=cluster.root_ca_cert)
    counted = [node for node in view.nodes.values() if not node.certificate.is_void]
    message.nodes_total = len(counted)
    if rotation is None:
        message.nodes_rotated = len(counted)
        return message
    waiting = list(waiting_nodes(view, signing_authority(cluster).issuer))
    message.target_ca_cert = rotation.root_ca_cert
    set_timestamp(message.started_at, rotation.started_at)
    message.nodes_rotated = len(counted) - len(waiting)
    for node in sorted(waiting, key=lambda node: (node.status.state is NodeState.READY, node.id))[:MAX_WAITING]:
        state = types_pb2.NodeState.ValueType(node.status.state)
        message.waiting.add(node_id=node.id, hostname=node.description.hostname, state=state)
    return message
