"""Locking of files that hold keys: AES-256-GCM under a random 256-bit key, so no password hashing is needed.

Two kinds of lock key: the cluster's unlock key, which people keep (`SWMKEY-1-…`, docker's form), and a machine's master
key, which only lies on its disk locked by the unlock key. A locked file says that it is one; the purpose it was locked
for is bound to it, so one file cannot be put in another's place. Decides no policy, writes nothing.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyswarm_common.errors import FailedPrecondition, InvalidArgument

KEY_BYTES = 32
LOCKED = 'Swarm is encrypted and needs to be unlocked before it can be used. Please use "pyswarm unlock" to unlock it.'
WRONG_KEY = "swarm could not be unlocked: invalid key provided"
MAX_LOCKED_BYTES = 1 << 20

_TOKEN_PREFIX = "SWMKEY-1-"  # noqa: S105 - what a token begins with
_TOKEN_LENGTH = len(_TOKEN_PREFIX) + 43  # base64 of 32 bytes without padding
_MAGIC = b"PYSWARM-LOCKED-1\n"
_NONCE_BYTES = 12


class Locked(FailedPrecondition):
    """The keys of this machine wait for the unlock key."""

    def __init__(self) -> None:
        super().__init__(LOCKED)


class WrongKey(InvalidArgument):
    """The key does not open the lock (or what is locked was changed, which cannot be told apart)."""

    def __init__(self) -> None:
        super().__init__(WRONG_KEY)


@dataclass(frozen=True, slots=True, repr=False)
class LockKey:
    """256 random bits. It has no `repr` and no `str`, so that it gets into no log."""

    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise WrongKey

    @classmethod
    def generate(cls) -> Self:
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, token: str) -> Self:
        """Of the form that `pyswarm unlock-key` shows. Raises WrongKey."""
        text = token.strip()
        if len(text) != _TOKEN_LENGTH or not text.startswith(_TOKEN_PREFIX):
            raise WrongKey
        try:
            return cls(base64.b64decode(text.removeprefix(_TOKEN_PREFIX) + "=", validate=True))
        except (binascii.Error, ValueError):
            raise WrongKey from None

    def token(self) -> str:
        """For people, and for nobody's log."""
        return _TOKEN_PREFIX + base64.b64encode(self.secret).decode().rstrip("=")

    def lock(self, content: bytes, purpose: str) -> bytes:
        """The locked form of a file's content."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _MAGIC + nonce + AESGCM(self.secret).encrypt(nonce, content, _MAGIC + purpose.encode())

    def unlock(self, content: bytes, purpose: str) -> bytes:
        """The content again. Raises WrongKey."""
        body = content.removeprefix(_MAGIC)
        if not is_locked(content) or len(content) > MAX_LOCKED_BYTES:
            raise WrongKey
        try:
            return AESGCM(self.secret).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], _MAGIC + purpose.encode())
        except (InvalidTag, ValueError):
            raise WrongKey from None


def is_locked(content: bytes) -> bool:
    """Whether a file's content is a locked one."""
    return content.startswith(_MAGIC)


def locked(content: bytes, purpose: str, key: LockKey | None) -> bytes:
    """As it is to lie on the disk: as it is without a key."""
    return content if key is None else key.lock(content, purpose)


def unlocked(content: bytes, purpose: str, key: LockKey | None) -> bytes:
    """As it is, or opened. Raises Locked where a key is needed and there is none, WrongKey where it is another."""
    if not is_locked(content):
        return content
    if key is None:
        raise Locked
    return key.unlock(content, purpose)
