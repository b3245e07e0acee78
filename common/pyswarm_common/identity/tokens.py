"""Join tokens in Swarm's form: `SWMTKN-1-<root digest>-<secret>`.

The digest pins the cluster's root certificate, so that whoever joins never sends the secret to an impostor.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pyswarm_common.errors import InvalidArgument

_PREFIX = "SWMTKN"
_VERSION = "1"
_DIGEST_LENGTH = 50  # base-36 digits that hold 256 bits
_SECRET_LENGTH = 25  # base-36 digits that hold 128 bits
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def root_digest(root_cert_pem: bytes) -> str:
    """SHA-256 of the root certificate (DER), in 50 digits of base 36."""
    der = x509.load_pem_x509_certificate(root_cert_pem).public_bytes(serialization.Encoding.DER)
    return _base36(int.from_bytes(hashlib.sha256(der).digest(), "big"), _DIGEST_LENGTH)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A parsed token. `str()` gives the token back; `repr()` hides the secret."""

    digest: str
    secret: str

    @classmethod
    def generate(cls, root_cert_pem: bytes) -> JoinToken:
        """A token with a new random secret for this root."""
        return cls(root_digest(root_cert_pem), _base36(secrets.randbits(128), _SECRET_LENGTH))

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises InvalidArgument for anything that is not of a token's form."""
        parts = text.strip().split("-")
        if len(parts) != 4 or parts[:2] != [_PREFIX, _VERSION] or not _is_form(parts[2], parts[3]):
            raise InvalidArgument("invalid join token: copy the whole line that `pyswarm join-token` prints")
        return cls(parts[2], parts[3])

    def matches(self, other: JoinToken) -> bool:
        """Equal, compared in constant time."""
        return hmac.compare_digest(str(self), str(other))

    @property
    def secret_hash(self) -> bytes:
        """What may be kept of a secret. 128 random bits need no slow hash."""
        return hashlib.sha256(self.secret.encode("ascii")).digest()

    def __str__(self) -> str:
        return f"{_PREFIX}-{_VERSION}-{self.digest}-{self.secret}"

    def __repr__(self) -> str:
        return f"JoinToken({self.digest!r}, …)"


def _is_form(digest: str, secret: str) -> bool:
    return (
        len(digest) == _DIGEST_LENGTH and len(secret) == _SECRET_LENGTH and all(c in _ALPHABET for c in digest + secret)
    )


def _base36(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    assert number == 0, "too few digits"
    return "".join(reversed(digits))
