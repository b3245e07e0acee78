"""Encryption of what lies on the disk: AES-256-GCM with a key of the manager's keyring (see `pyswarm_manager.keyring`).

Each run draws a salt and derives a key of its own from it, so a counter can be the nonce and none is ever used twice.
A sealed blob is the key's id (4) + salt (16) + nonce (12) + ciphertext and tag; the associated data binds it to its
place in the log. Never writes a key anywhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pyswarm_manager.raft.storage.port import StorageCorrupt

KEY_BYTES = 32
_ID_BYTES = 4
_SALT_BYTES = 16
_NONCE_BYTES = 12
_PREFIX_BYTES = _ID_BYTES + _SALT_BYTES
_HEADER_BYTES = _PREFIX_BYTES + _NONCE_BYTES


class Sealer(Protocol):
    """Encrypts with integrity. `open` raises StorageCorrupt if the blob or its place is not what was sealed."""

    def seal(self, plaintext: bytes, associated: bytes) -> bytes: ...

    def open(self, sealed: bytes, associated: bytes) -> bytes: ...

    def is_current(self, sealed: bytes) -> bool:
        """Whether the key that seals now has sealed it."""
        ...


class AesGcmSealer:
    """Seals with one 256-bit key, and opens what older ones sealed. For one thread at a time."""

    def __init__(self, key: bytes, key_id: int = 1, older: Mapping[int, bytes] | None = None) -> None:
        self._keys: dict[int, bytes] = dict(older or {})
        self._ciphers: dict[bytes, AESGCM] = {}
        self.use(key_id, key)

    def use(self, key_id: int, key: bytes) -> None:
        """Seal with this key from now on; those before are still opened."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key must be {KEY_BYTES} bytes long")
        self._keys[key_id] = key
        self._id = key_id.to_bytes(_ID_BYTES, "big")
        self._prefix = self._id + secrets.token_bytes(_SALT_BYTES)
        self._cipher = self._cipher_of(self._prefix)
        self._counter = 0

    def forget_older(self) -> None:
        """Nothing that is stored needs the keys before the current one."""
        current = int.from_bytes(self._id, "big")
        self._keys = {current: self._keys[current]}
        self._ciphers = {self._prefix: self._cipher}

    def is_current(self, sealed: bytes) -> bool:
        """Whether the key that seals now has sealed it."""
        return sealed[:_ID_BYTES] == self._id

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """Encrypt, bound to `associated`."""
        self._counter += 1
        nonce = self._counter.to_bytes(_NONCE_BYTES, "big")
        return self._prefix + nonce + self._cipher.encrypt(nonce, plaintext, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Decrypt, or raise StorageCorrupt."""
        prefix, nonce = sealed[:_PREFIX_BYTES], sealed[_PREFIX_BYTES:_HEADER_BYTES]
        try:
            return self._cipher_of(prefix).decrypt(nonce, sealed[_HEADER_BYTES:], associated)
        except (InvalidTag, ValueError, KeyError):
            raise StorageCorrupt("a stored blob was changed, or was written with another key") from None

    def _cipher_of(self, prefix: bytes) -> AESGCM:
        """One per key and run: one per restart since the last compaction, so there are few."""
        if prefix not in self._ciphers:
            key = self._keys[int.from_bytes(prefix[:_ID_BYTES], "big")]
            derived = HKDF(SHA256(), KEY_BYTES, prefix[_ID_BYTES:], b"pyswarm raft log").derive(key)
            self._ciphers[prefix] = AESGCM(derived)
        return self._ciphers[prefix]
