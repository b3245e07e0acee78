"""Keys, signing requests, and the root that signs node certificates (X.509, RFC 5280).

Node keys are ECDSA P-256. A CA that an operator brings may be P-256, P-384 or RSA (`identity.roots` checks it).
"""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import NodeRole
from pyswarm_common.server_names import NODE_SERVER_NAME, role_name

MIN_RSA_BITS = 2048
ROOT_LIFETIME_S = 20 * 365 * 24 * 3600.0
_PATH_LENGTH = 3  # room for the operator's intermediates and for a cross-signed successor
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


SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def signing_key_from_pem(pem: bytes) -> SigningKey:
    """The key of a CA. Raises InvalidArgument if it is of no kind that a CA may have here."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidArgument("the CA's key is not an unencrypted private key in PEM form") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key
    raise InvalidArgument(f"the CA's key must be ECDSA P-256, ECDSA P-384 or RSA of at least {MIN_RSA_BITS} bits")


def key_identifier(certificate: x509.Certificate) -> bytes:
    """What names the certificate's key in the certificates it signs."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


@dataclass(frozen=True, slots=True, repr=False)
class RootAuthority:
    """A CA: the root that nodes trust, the key that signs, and what leads from that key to the root. All PEM."""

    cert_pem: bytes
    key_pem: bytes
    """Of the first certificate of the chain; of the root itself if there is no chain."""
    chain_pem: bytes = b""
    bridge_pem: bytes = b""
    """What leads from this root to an older one, for nodes that trust only that."""

    @classmethod
    def create(cls, cluster_id: str, now: float) -> RootAuthority:
        """A self-signed root for a cluster. No two have the same name, so nobody can mistake one for the other."""
        key = generate_key()
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, secrets.token_hex(8)),
            ]
        )
        builder = _builder(name, name, key.public_key(), now, ROOT_LIFETIME_S)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=_PATH_LENGTH), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        cert = builder.sign(key, hashes.SHA256())
        return cls(cert.public_bytes(serialization.Encoding.PEM), key_to_pem(key))

    @property
    def signing_certificate(self) -> x509.Certificate:
        """The one whose key signs."""
        return x509.load_pem_x509_certificate(self.chain_pem or self.cert_pem)

    @property
    def issuer(self) -> str:
        """Key identifier (hex) of the CA that signs, as the certificates it signs name it."""
        return key_identifier(self.signing_certificate).hex()

    def issue(
        self, csr_pem: bytes, *, node_id: str, cluster_id: str, role: NodeRole, now: float, lifetime_s: float
    ) -> bytes:
        """A node certificate (PEM) for the request's key, then what leads from it to the root (and to an older one).

        Names come from the arguments, never from the request."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, node_id),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role_name(role)),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            ]
        )
        signer = self.signing_certificate
        builder = _builder(subject, signer.subject, public_key_of_csr(csr_pem), now, lifetime_s)
        names = [x509.DNSName(name) for name in (role_name(role), NODE_SERVER_NAME, node_id)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return self._signed(builder, signer) + self.chain_pem + self.bridge_pem

    def issue_person(self, csr_pem: bytes, subject: x509.Name, *, now: float, lifetime_s: float) -> bytes:
        """A person's client certificate (PEM) for the request's key, then what leads from it to the root.

        It can never prove a server: neither by its usages, nor by a name that anybody asks a server for."""
        signer = self.signing_certificate
        unit = str(subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value)
        builder = _builder(subject, signer.subject, public_key_of_csr(csr_pem), now, lifetime_s)
        # A certificate without such a name would be taken by its CN.
        names = x509.SubjectAlternativeName([x509.DNSName(unit)])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        return self._signed(builder, signer) + self.chain_pem + self.bridge_pem

    def cross_sign(self, other_root_pem: bytes, now: float) -> bytes:
        """The other root's name and key, certified by this one: who trusts this root then believes the other too."""
        other, signer = x509.load_pem_x509_certificate(other_root_pem), self.signing_certificate
        key = other.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey), "checked when the root was read"
        until = min(other.not_valid_after_utc, signer.not_valid_after_utc).timestamp()
        builder = (
            x509.CertificateBuilder()
            .subject_name(other.subject)
            .issuer_name(signer.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(dt.datetime.fromtimestamp(now - _CLOCK_SKEW_S, dt.UTC))
            .not_valid_after(dt.datetime.fromtimestamp(until, dt.UTC))
            .add_extension(x509.SubjectKeyIdentifier(key_identifier(other)), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        return self._signed(builder, signer)

    def _signed(self, builder: x509.CertificateBuilder, signer: x509.Certificate) -> bytes:
        key = signing_key_from_pem(self.key_pem)
        own = x509.AuthorityKeyIdentifier(key_identifier(signer), None, None)
        is_p384 = isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256
        algorithm = hashes.SHA384() if is_p384 else hashes.SHA256()
        cert = builder.add_extension(own, critical=False).sign(key, algorithm)
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
