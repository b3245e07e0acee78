"""The lock on this machine's keys: one small file, and the master key that it guards.

With autolock, node key and keyring lie on the disk locked by a random master key of this machine, and the master key
lies in `node.lock`, locked by the cluster's unlock key. So one key always opens everything, whatever a crash
interrupted, and a new unlock key is one file written anew. As long as the file exists, the machine's manager and agent
begin only when somebody has given the unlock key. Keeps the keys in memory and nowhere else.
"""

from __future__ import annotations

from pathlib import Path

from pyswarm_common.files import sync_directory, write_private
from pyswarm_common.identity.locks import MAX_LOCKED_BYTES, Locked, LockKey

FILE = "node.lock"


class MachineLock:
    """At most one, in the directory of the certificates."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._unlock_key: LockKey | None = None
        self._master: LockKey | None = None

    @property
    def is_locked(self) -> bool:
        """The unlock key is needed first."""
        return self._master is None and self._path.exists()

    @property
    def master(self) -> LockKey | None:
        """What the files are locked with; None where there is no lock. Raises Locked."""
        if self.is_locked:
            raise Locked
        return self._master

    def open(self, unlock_key: LockKey) -> None:
        """Raises WrongKey."""
        with self._path.open("rb") as file:
            content = file.read(MAX_LOCKED_BYTES + 1)
        self._master = LockKey(unlock_key.unlock(content, FILE))
        self._unlock_key = unlock_key

    def put_on(self, unlock_key: LockKey) -> None:
        """Lock with this key from now on. On disk before anything is locked with a new master key."""
        assert not self.is_locked
        if self._unlock_key == unlock_key:
            return
        master = self._master or LockKey.generate()
        write_private(self._path, unlock_key.lock(master.secret, FILE))
        self._master, self._unlock_key = master, unlock_key

    def take_off(self) -> None:
        """Only when nothing on the disk is locked any more."""
        self.forget()
        if self._path.exists():
            self._path.unlink()
            sync_directory(self._path.parent)

    def forget(self) -> None:
        """The files are gone, or are another cluster's."""
        self._unlock_key = self._master = None
