"""Whether a certificate that came as bytes is a node's of this cluster: for what is signed rather than said over TLS.

TLS verifies whoever is connected. A message that others pass on, and a node whose certificate has expired, prove
themselves by a signature of the certificate's key; here the certificate is held to the cluster's roots. Parses what
comes from outside: bounded, and every failure is an InvalidArgument. Never decides what the node may do.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_common.identity.authority import key_from_pem
from pyswarm_common.identity.credentials import NodeIdentity
from pyswarm_common.identity.roots import read_bundle
from pyswarm_common.model import NodeRole

MAX_CERTIFICATES = 4
MAX_CERTIFICATE_BYTES = 16 * 1024
_SIGNATURE = ec.ECDSA(hashes.SHA256())
_UNREADABLE = (
    FailedPrecondition,
    StopIteration,
    ValueError,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
)


@dataclass(frozen=True, slots=True)
class CertifiedNode:
    """Whom the cluster's root certifies, and by which key."""

    node_id: str
    cluster_id: str
    role: NodeRole
    key: ec.EllipticCurvePublicKey
    not_after: float

    def check_signature(self, signature: bytes, context: bytes, body: bytes) -> None:
        """Raises InvalidArgument unless the node's key signed `body` in this context."""
        try:
            self.key.verify(signature, context + b"\0" + body, _SIGNATURE)
        except InvalidSignature as error:
            raise InvalidArgument(f"the signature is not of node {self.node_id}") from error


def certified_node(cert_pem: bytes, root_pem: bytes, now: float | None) -> CertifiedNode:
    """Holds a node's certificate (and those between, after it) to the roots. `now` None: it may have expired."""
    if len(cert_pem) > MAX_CERTIFICATE_BYTES:
        raise InvalidArgument("the certificate is too large")
    leaf, *between = read_bundle(cert_pem)
    if len(between) >= MAX_CERTIFICATES:
        raise InvalidArgument("the certificate comes with too many others")
    if not _is_issued_by_any(leaf, between, read_bundle(root_pem)):
        raise InvalidArgument("the certificate was not issued by this cluster")
    if now is not None:
        _check_time(leaf, now)
    return _described(leaf, cert_pem)


def claimed_node_id(cert_pem: bytes) -> str:
    """Whose certificate it says it is, whoever issued it: proves nothing."""
    if len(cert_pem) > MAX_CERTIFICATE_BYTES:
        raise InvalidArgument("the certificate is too large")
    leaf, *_ = read_bundle(cert_pem)
    return _described(leaf, cert_pem).node_id


def sign(key_pem: bytes, context: bytes, body: bytes) -> bytes:
    """The signature that `check_signature` wants."""
    return key_from_pem(key_pem).sign(context + b"\0" + body, _SIGNATURE)


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 (hex) of the key, as Node objects keep it."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _is_issued_by_any(
    certificate: x509.Certificate, between: list[x509.Certificate], roots: list[x509.Certificate]
) -> bool:
    """By a root, or by one of those between that in turn leads to a root; each is used once."""
    if any(_is_issued_by(certificate, root) for root in roots):
        return True
    for position, candidate in enumerate(between):
        rest = between[:position] + between[position + 1 :]
        if _is_issued_by(certificate, candidate) and _is_issued_by_any(candidate, rest, roots):
            return True
    return False


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    except x509.DuplicateExtension:
        return False
    return constraints.ca


def _check_time(certificate: x509.Certificate, now: float) -> None:
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise InvalidArgument("the certificate is not valid now")


def _described(leaf: x509.Certificate, cert_pem: bytes) -> CertifiedNode:
    identity = NodeIdentity(cert_pem=cert_pem, key_pem=b"", root_cert_pem=b"")
    try:
        key = leaf.public_key()
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
        node_id, cluster_id, role = identity.node_id, identity.cluster_id, identity.role
    except _UNREADABLE as error:
        raise InvalidArgument("the certificate is not a node's") from error
    if constraints.ca or not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidArgument("the certificate is not a node's")
    return CertifiedNode(node_id, cluster_id, role, key, leaf.not_valid_after_utc.timestamp())
