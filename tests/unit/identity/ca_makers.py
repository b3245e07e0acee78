"""CAs as an operator would make them, and identities at each stage of a root's replacement."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from pyswarm_common.identity import NodeIdentity, RootAuthority, bundle, generate_key, key_to_pem, make_csr
from pyswarm_common.model import NodeRole

CLUSTER = "c" * 25
YEAR_S = 365 * 24 * 3600.0


@dataclass(frozen=True)
class MadeCa:
    """A CA's files."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return key_pem(self.key)


def key_pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def make_ca(
    name: str,
    issuer: MadeCa | None = None,
    key: Any = None,
    *,
    is_ca: bool | None = True,
    path_length: int | None = None,
    starts_in_s: float = -3600.0,
    ends_in_s: float = YEAR_S,
    usage: bool = True,
    ski: bool = True,
) -> MadeCa:
    """Self-signed without an issuer. `is_ca` None: without basic constraints."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(seconds=starts_in_s))
        .not_valid_after(now + dt.timedelta(seconds=ends_in_s))
    )
    if is_ca is not None:
        constraints = x509.BasicConstraints(ca=is_ca, path_length=path_length if is_ca else None)
        builder = builder.add_extension(constraints, critical=True)
    if ski:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(own, critical=False)
    if ski and issuer is not None:
        signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(signed_by, critical=False)
    if usage:
        flags = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
        )
        key_usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=bool(is_ca), crl_sign=bool(is_ca), decipher_only=False, **flags
        )
        builder = builder.add_extension(key_usage, critical=True)
    signer = issuer.key if issuer else key
    return MadeCa(builder.sign(signer, hashes.SHA256()), key)


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def identity(authority: RootAuthority, trusted: bytes, role: NodeRole = NodeRole.MANAGER) -> NodeIdentity:
    """A node's, with a certificate of that authority."""
    key = generate_key()
    certificate = authority.issue(
        make_csr(key), node_id="n" * 25, cluster_id=CLUSTER, role=role, now=time.time(), lifetime_s=3600
    )
    return NodeIdentity(certificate, key_to_pem(key), trusted)


def bridged(new: RootAuthority, old: RootAuthority) -> RootAuthority:
    """The new authority while it replaces the old one."""
    bridge = bundle(old.cross_sign(new.cert_pem, time.time()), old.chain_pem)
    return RootAuthority(new.cert_pem, new.key_pem, new.chain_pem, bridge)
