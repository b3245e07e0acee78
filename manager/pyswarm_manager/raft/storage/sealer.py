"""Encryption of what lies on the disk: AES-256-GCM with a key from a file that only its owner may read.

Each run draws a salt and derives a key of its own from it, so a counter can be the nonce and none is ever used twice.
A sealed blob is salt (16) + nonce (12) + ciphertext and tag; the associated data binds it to its place in the log.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pyswarm_manager.raft.storage.port import StorageCorrupt

KEY_BYTES = 32
_SALT_BYTES = 16
_NONCE_BYTES = 12
_HEADER_BYTES = _SALT_BYTES + _NONCE_BYTES


class Sealer(Protocol):
    """Encrypts with integrity. `open` raises StorageCorrupt if the blob or its place is not what was sealed."""

    def seal(self, plaintext: bytes, associated: bytes) -> bytes: ...

    def open(self, sealed: bytes, associated: bytes) -> bytes: ...


class AesGcmSealer:
    """Seals with one 256-bit key. For one thread at a time."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key must be {KEY_BYTES} bytes long")
        self._key = key
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._cipher = self._derive(self._salt)
        self._counter = 0
        self._others: dict[bytes, AESGCM] = {self._salt: self._cipher}

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """Encrypt, bound to `associated`."""
        self._counter += 1
        nonce = self._counter.to_bytes(_NONCE_BYTES, "big")
        return self._salt + nonce + self._cipher.encrypt(nonce, plaintext, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Decrypt, or raise StorageCorrupt."""
        salt, nonce = sealed[:_SALT_BYTES], sealed[_SALT_BYTES:_HEADER_BYTES]
        try:
            return self._cipher_of(salt).decrypt(nonce, sealed[_HEADER_BYTES:], associated)
        except (InvalidTag, ValueError):
            raise StorageCorrupt("a stored blob was changed, or was written with another key") from None

    def _cipher_of(self, salt: bytes) -> AESGCM:
        """The cipher of an earlier run: one per restart since the last compaction, so there are few."""
        if salt not in self._others:
            self._others[salt] = self._derive(salt)
        return self._others[salt]

    def _derive(self, salt: bytes) -> AESGCM:
        return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"pyswarm raft log").derive(self._key))


def load_or_create_key(path: Path) -> bytes:
    """The key in `path`, made if there is none. Refuses a file that others may read."""
    if not path.exists():
        _create_key(path)
    if path.stat().st_mode & 0o077:
        raise StorageCorrupt(f"the key file {path} can be read by others: run `chmod 600 {path}` and consider it known")
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise StorageCorrupt(f"the key file {path} is damaged: restore it from a backup, or let this manager join anew")
    return key


def _create_key(path: Path) -> None:
    """Write and sync beside it first, so that a crash leaves a whole key or none."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
