"""The keys that a manager's log is sealed with on its disk: the file `raft-keys`, and the steps of a rotation.

The file holds the current key and the older ones that something stored may still need, each with its id. It is written
as a whole, beside itself and then renamed. A rotation first writes the new key, then seals with it, then re-seals what
older keys sealed, and only then forgets those; after a crash at any step the next start finds every key it needs, and
goes on from there. With autolock the file is locked by the machine's master key, which the daemon hands over.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Self

import msgspec

from pyswarm_common.documents import Malformed, decode_msgpack
from pyswarm_common.files import write_private
from pyswarm_common.identity.locks import LockKey, locked, unlocked
from pyswarm_manager.raft.storage.port import StorageCorrupt
from pyswarm_manager.raft.storage.sealer import KEY_BYTES, AesGcmSealer

VERSION = 1
MAX_KEYS = 1024
MAX_FILE_BYTES = 1 << 20
PURPOSE = "raft keys"
MAX_KEY_AGE_S = 90 * 24 * 3600.0
"""A key is replaced after this time, without being asked."""


class DataKey(msgspec.Struct, frozen=True):
    """One key. Ids count up and are never used twice."""

    id: int
    key: bytes
    created_at: float

    def __repr__(self) -> str:
        return f"DataKey({self.id}, …)"


class Keyring(msgspec.Struct, frozen=True):
    """The current key is the last one."""

    version: int
    epoch: int
    """The cluster's count of rotations that this ring has followed."""
    keys: tuple[DataKey, ...]

    @classmethod
    def new(cls, now: float, epoch: int = 0) -> Self:
        return cls(VERSION, epoch, (DataKey(1, secrets.token_bytes(KEY_BYTES), now),))

    @property
    def current(self) -> DataKey:
        return self.keys[-1]

    def is_due(self, now: float, epoch: int) -> bool:
        """Whether a new key is to be made: somebody asked for one, or this one is old."""
        return epoch > self.epoch or now - self.current.created_at > MAX_KEY_AGE_S

    def rotated(self, now: float, epoch: int) -> Keyring:
        """With one more key, which is the current one."""
        fresh = DataKey(self.current.id + 1, secrets.token_bytes(KEY_BYTES), now)
        return Keyring(VERSION, max(epoch, self.epoch), (*self.keys, fresh))

    def only_current(self) -> Keyring:
        """Nothing needs the older ones any more."""
        return msgspec.structs.replace(self, keys=(self.current,))

    def sealer(self) -> AesGcmSealer:
        older = {key.id: key.key for key in self.keys[:-1]}
        return AesGcmSealer(self.current.key, self.current.id, older)


class KeyringFile:
    """Where the ring lies, and how it is locked."""

    def __init__(self, path: Path, master: LockKey | None = None) -> None:
        self._path = path
        self.master = master

    def load(self) -> Keyring | None:
        """None if there is none. Raises Locked, WrongKey, or StorageCorrupt with what to do."""
        if not self._path.exists():
            return None
        if self._path.stat().st_mode & 0o077:
            raise StorageCorrupt(
                f"the key file {self._path} can be read by others: run `chmod 600 {self._path}`, start this manager, "
                "and then `pyswarm operator rotate-encryption-key`, since the keys may be known"
            )
        with self._path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        return self._parse(unlocked(content, PURPOSE, self.master))

    def _parse(self, content: bytes) -> Keyring:
        try:
            ring = decode_msgpack(content, Keyring)
        except Malformed:
            raise self._damaged() from None
        ids = [key.id for key in ring.keys]
        is_whole = ring.version == VERSION and 0 < len(ids) <= MAX_KEYS and ids == sorted(set(ids)) and ids[0] > 0
        if not is_whole or ids[-1] >= 1 << 32 or any(len(key.key) != KEY_BYTES for key in ring.keys):
            raise self._damaged()
        return ring

    def _damaged(self) -> StorageCorrupt:
        return StorageCorrupt(
            f"the key file {self._path} is damaged: restore it from a backup, or let this manager join anew"
        )

    def save(self, ring: Keyring) -> None:
        """Durable on return. Raises OSError; the old file is whole then."""
        write_private(self._path, locked(msgspec.msgpack.encode(ring), PURPOSE, self.master))

    def relock(self, master: LockKey | None) -> None:
        """Lock the file with another master key, or leave it open."""
        ring = self.load()
        assert ring is not None, "a manager that runs has a keyring"
        before, self.master = self.master, master
        try:
            self.save(ring)
        except OSError:
            self.master = before
            raise
