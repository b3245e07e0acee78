"""People's proofs: API tokens, and client certificates whose names say a role, a person and a credential.

Decides their form only. A certificate of a person has OU = swarm-viewer, swarm-operator or swarm-admin, CN = the name,
O = the cluster id, serialNumber = the credential's id; it can prove a client and never a server, and has no name that a
node's certificate has. Whether a credential still holds is known to the managers' store alone (`access.admission`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from pyswarm_common.errors import InvalidArgument, Unauthenticated
from pyswarm_common.ids import id_from_bits, is_id
from pyswarm_common.model.states import PersonRole

_UNITS: Final = {
    PersonRole.VIEWER: "swarm-viewer",
    PersonRole.OPERATOR: "swarm-operator",
    PersonRole.ADMIN: "swarm-admin",
}
_ROLES: Final = {unit: role for role, unit in _UNITS.items()}
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.@-]{0,62}[A-Za-z0-9])?")


def person_unit(role: PersonRole) -> str:
    """The organisational unit of that role's certificates."""
    return _UNITS[role]


def is_person_name(text: str) -> bool:
    """Letters, digits and `_.@-` inside, 64 at most: safe in a certificate, in metadata and on a terminal."""
    return _NAME.fullmatch(text) is not None


def key_fingerprint(key: object) -> str:
    """SHA-256 of a public key, in hex."""
    der: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every kind of public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


@dataclass(frozen=True, slots=True)
class PersonCertificate:
    """Whom a certificate names. The TLS library has verified who signed it, and that it has not expired."""

    role: PersonRole
    name: str
    cluster_id: str
    credential_id: str
    fingerprint: str
    expires_at: float


def read_person(cert_pem: bytes) -> PersonCertificate | None:
    """The person that the certificate names; None if it is a node's. Raises Unauthenticated for what is none."""
    try:
        return _read_person(x509.load_pem_x509_certificate(cert_pem))
    except Exception as error:  # the X.509 parser raises many things for many kinds of rubbish
        raise Unauthenticated("the client certificate cannot be read") from error


def _read_person(certificate: x509.Certificate) -> PersonCertificate | None:
    subject = certificate.subject
    role = _ROLES.get(_single(subject, NameOID.ORGANIZATIONAL_UNIT_NAME))
    if role is None:
        return None
    return PersonCertificate(
        role=role,
        name=_single(subject, NameOID.COMMON_NAME),
        cluster_id=_single(subject, NameOID.ORGANIZATION_NAME),
        credential_id=_single(subject, NameOID.SERIAL_NUMBER),
        fingerprint=key_fingerprint(certificate.public_key()),
        expires_at=certificate.not_valid_after_utc.timestamp(),
    )


def person_subject(role: PersonRole, name: str, cluster_id: str, credential_id: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, person_unit(role)),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, credential_id),
        ]
    )


def _single(subject: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = subject.get_attributes_for_oid(oid)
    return str(values[0].value) if len(values) == 1 else ""


_PREFIX: Final = "PSWT"
_VERSION: Final = "1"
MAX_TOKEN_LENGTH: Final = 128


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A parsed API token, `PSWT-1-<id>-<secret>`. `str()` gives it back; `repr()` hides the secret."""

    id: str
    secret: str

    @classmethod
    def generate(cls, token_id: str) -> ApiToken:
        """With a new secret of 128 random bits."""
        return cls(token_id, id_from_bits(secrets.randbits(128)))

    @classmethod
    def parse(cls, text: str) -> ApiToken:
        """Raises InvalidArgument for anything that is not of a token's form."""
        parts = text.strip().split("-") if len(text) <= MAX_TOKEN_LENGTH else []
        if len(parts) != 4 or parts[:2] != [_PREFIX, _VERSION] or not (is_id(parts[2]) and is_id(parts[3])):
            raise InvalidArgument("invalid API token: copy the whole line that `pyswarm token create` printed")
        return cls(parts[2], parts[3])

    @property
    def digest(self) -> bytes:
        """What the store keeps instead of the token. A plain hash is enough for 128 random bits."""
        return hashlib.sha256(str(self).encode()).digest()

    def matches(self, digest: bytes) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(self.digest, digest)

    def __str__(self) -> str:
        return f"{_PREFIX}-{_VERSION}-{self.id}-{self.secret}"

    def __repr__(self) -> str:
        return f"ApiToken({self.id!r}, …)"
