"""The request of a node whose certificate has expired: it proves itself by its key, over HTTPS, since TLS refuses an
expired certificate. Made here for the node, and read here for the managers; what they give is theirs to decide."""

from __future__ import annotations

from pyswarm.v1 import ca_pb2
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity.authority import key_from_pem, make_csr, public_key_of_csr
from pyswarm_common.identity.credentials import NodeIdentity
from pyswarm_common.identity.verification import CertifiedNode, certified_node, sign

CONTEXT = b"pyswarm renewal"
MAX_CLOCK_DIFFERENCE_S = 3600.0
MAX_BYTES = 16 * 1024


def expired_request(identity: NodeIdentity, now: float) -> ca_pb2.RenewExpiredRequest:
    """Asks for a new certificate for the same key."""
    request = ca_pb2.RenewExpiredRequest(
        certificate=identity.cert_pem, csr=make_csr(key_from_pem(identity.key_pem)), asked_at_ms=int(now * 1000)
    )
    request.signature = sign(identity.key_pem, CONTEXT, _body(request))
    return request


def read_expired_request(request: ca_pb2.RenewExpiredRequest, root_pem: bytes, now: float) -> CertifiedNode:
    """Who asks, proved by the certificate (whatever its age) and its key. Raises InvalidArgument."""
    if max(len(request.certificate), len(request.csr)) > MAX_BYTES:
        raise InvalidArgument("the request is too large")
    if abs(request.asked_at_ms / 1000 - now) > MAX_CLOCK_DIFFERENCE_S:
        raise InvalidArgument("the clocks of this node and of the managers differ by more than an hour: set them")
    node = certified_node(request.certificate, root_pem, None)
    node.check_signature(request.signature, CONTEXT, _body(request))
    if public_key_of_csr(request.csr) != node.key:
        raise InvalidArgument("the request is for another key than the certificate's")
    return node


def _body(request: ca_pb2.RenewExpiredRequest) -> bytes:
    return request.asked_at_ms.to_bytes(8, "big") + request.certificate + b"\0" + request.csr
