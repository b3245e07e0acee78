"""Keys, signing requests, and the root that signs node certificates (X.509, RFC 5280; ECDSA P-256)."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.identity.credentials import NODE_SERVER_NAME, role_name
from pyswarm_common.model import NodeRole

ROOT_LIFETIME_S = 20 * 365 * 24 * 3600.0
_CLOCK_SKEW_S = 3600.0  # a node whose clock is behind must accept a certificate made now


def generate_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8, unencrypted: write it only to files of mode 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises InvalidArgument if it is not a P-256 key."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"not a private key in PEM form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgument("the private key is not an ECDSA P-256 key")
    return key


def make_csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A PEM request that carries only the public key: the CA writes the names."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def public_key_of_csr(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The request's key, after checking that the requester holds its private half."""
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        key, is_signed = csr.public_key(), csr.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InvalidArgument("not a certificate signing request in PEM form") from error
    if not is_signed or not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidArgument("the certificate signing request is not signed by an ECDSA key of its own")
    return key


@dataclass(frozen=True, slots=True, repr=False)
class RootAuthority:
    """The cluster's root CA: certificate and key, both PEM."""

    cert_pem: bytes
    key_pem: bytes

    @classmethod
    def create(cls, cluster_id: str, now: float) -> RootAuthority:
        """A self-signed root for a new cluster."""
        key = generate_key()
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            ]
        )
        builder = _builder(name, name, key.public_key(), now, ROOT_LIFETIME_S)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        cert = builder.sign(key, hashes.SHA256())
        return cls(cert.public_bytes(serialization.Encoding.PEM), key_to_pem(key))

    def issue(
        self, csr_pem: bytes, *, node_id: str, cluster_id: str, role: NodeRole, now: float, lifetime_s: float
    ) -> bytes:
        """A node certificate (PEM) for the request's key. Names come from the arguments, never from the request."""
        root = x509.load_pem_x509_certificate(self.cert_pem)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, node_id),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role_name(role)),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            ]
        )
        builder = _builder(subject, root.subject, public_key_of_csr(csr_pem), now, lifetime_s)
        names = [x509.DNSName(name) for name in (role_name(role), NODE_SERVER_NAME, node_id)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(key_from_pem(self.key_pem).public_key())
        builder = builder.add_extension(issuer_key, critical=False)
        cert = builder.sign(key_from_pem(self.key_pem), hashes.SHA256())
        return cert.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, lifetime_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(now - _CLOCK_SKEW_S, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(now + lifetime_s, dt.UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
