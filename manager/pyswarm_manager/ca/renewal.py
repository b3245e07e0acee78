"""Certificates for those whose certificate has expired: a node that slept through it, and this manager itself.

An expired certificate still says which key was a node's. Whoever holds that key is the node, as long as the cluster has
it: its object is there, and the key is one of the two that it was certified for last. Removed nodes get nothing.

A manager may issue itself one from its own copy of the store, since after a long sleep of all of them no leader could
be elected with what they have. That gives nobody a power it lacked: the root's key is in every manager's store, and a
certificate alone opens little, since whatever acts for a node looks it up in the store of who is asked (`speakers`,
`api.caller`). A manager that was removed meanwhile is refused there, whatever it issues itself.
"""

from __future__ import annotations

from pyswarm.v1 import ca_pb2, types_pb2
from pyswarm_common.errors import FailedPrecondition, Forbidden
from pyswarm_common.identity import NodeIdentity, key_from_pem, make_csr
from pyswarm_common.identity.renewal import MAX_CLOCK_DIFFERENCE_S, read_expired_request
from pyswarm_common.identity.verification import claimed_node_id, key_digest
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc import Caller, Peer
from pyswarm_manager.ca import issuing
from pyswarm_manager.removed import require_present
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.trust import trusted_roots
from pyswarm_manager.writes import Writer, cluster_of


async def renew_expired(writer: Writer, request: ca_pb2.RenewExpiredRequest) -> ca_pb2.RenewCertificateResponse:
    """A new certificate for the same key, with the role that the cluster wants of the node now. On the leader."""
    cluster = cluster_of(writer)
    asks = read_expired_request(request, trusted_roots(cluster), writer.clock())
    if asks.cluster_id != cluster.id:
        raise Forbidden("the certificate belongs to another cluster")
    if asks.not_after > writer.clock() + MAX_CLOCK_DIFFERENCE_S:
        raise FailedPrecondition("the certificate has not expired: renew it over the connection that it is for")
    caller = Peer(Caller.MANAGER if asks.role is NodeRole.MANAGER else Caller.WORKER, asks.node_id, asks.cluster_id)
    node = issuing.member_node(writer, caller)
    if node.key_digests and key_digest(asks.key) not in node.key_digests:
        raise Forbidden(f"node {node.id} has had newer certificates than this one: leave the swarm, then join again")
    return await issuing.renew(writer, request.csr, caller)


def refuse_removed(view: Tables, request: ca_pb2.RenewExpiredRequest) -> None:
    """Tell a node that it was removed, whichever root its certificate is of: it is told what `node ls` tells, and
    nothing is given. Raises NodeRemoved."""
    require_present(view, claimed_node_id(request.certificate))


def own_certificate(view: Tables, identity: NodeIdentity, now: float) -> ca_pb2.RenewCertificateResponse:
    """A new certificate for this manager's own key, by its own store. Raises FailedPrecondition where it may not."""
    cluster, node = view.cluster, view.nodes.get(identity.node_id)
    if cluster is None or cluster.id != identity.cluster_id:
        raise FailedPrecondition("the certificate has expired, and this manager's store does not know its swarm")
    if node is None or node.role is not NodeRole.MANAGER or node.spec.role is not NodeRole.MANAGER:
        raise FailedPrecondition("the certificate has expired, and this node is not to be a manager any more")
    key = key_from_pem(identity.key_pem)
    if node.key_digests and key_digest(key.public_key()) not in node.key_digests:
        raise FailedPrecondition("the certificate has expired, and its key is not the one that the swarm knows")
    certificate = issuing.sign(cluster, make_csr(key), node.id, NodeRole.MANAGER, now)
    return ca_pb2.RenewCertificateResponse(
        role=types_pb2.NodeRole.ValueType(NodeRole.MANAGER),
        certificate=certificate,
        root_ca_cert=trusted_roots(cluster),
    )
