"""A manager's sealed log together with its keyring: opening both, and replacing the key while the manager works.

`AtRest` does the steps, each of which blocks and belongs in the thread that uses the disk; `run_rotation` takes them
one by one, between the saves, and begins again after a crash or a full disk where it was. Decides nothing about the
cluster: how often the key is replaced on request is counted in the cluster object, which every manager follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

from pyswarm_common.errors import PyswarmError
from pyswarm_common.identity.locks import LockKey
from pyswarm_common.model import Cluster
from pyswarm_manager.config import ManagerPaths
from pyswarm_manager.keyring import Keyring, KeyringFile
from pyswarm_manager.raft.storage.port import StorageCorrupt, StorageFull
from pyswarm_manager.raft.storage.sqlite import SqliteStorage
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.store import Store

_log = logging.getLogger(__name__)

RESEAL_BATCH = 128
"""Entries sealed anew in one transaction: the saves in between wait for no more than that."""
_LOOK_AGAIN_S = 3600.0
_RETRY_S = 5.0

T = TypeVar("T")


class Disk(Protocol):
    """Whoever runs work in the thread that uses the disk."""

    async def on_disk(self, work: Callable[[], T]) -> T: ...


class AtRest:
    """Made by `open`."""

    def __init__(self, file: KeyringFile, ring: Keyring, paths: ManagerPaths) -> None:
        self._file = file
        self._set_aside = f"*/{paths.keyring.name}"
        self._directory = paths.directory
        self._ring = ring
        self._sealer = ring.sealer()
        self.storage = SqliteStorage(paths.database, self._sealer)

    @classmethod
    def open(cls, paths: ManagerPaths, master: LockKey | None, now: float) -> Self:
        """Raises Locked or WrongKey, and what the storage raises."""
        file = KeyringFile(paths.keyring, master)
        ring = file.load()
        if ring is None:
            if paths.database.exists():
                raise StorageCorrupt(
                    f"the key file {paths.keyring} is missing: put it back, or remove {paths.database} and let this "
                    "manager join anew"
                )
            ring = Keyring.new(now)
            file.save(ring)
        return cls(file, ring, paths)

    def is_due(self, now: float, epoch: int) -> bool:
        """Whether a new key is to be made."""
        return self._ring.is_due(now, epoch)

    @property
    def has_older_keys(self) -> bool:
        """Whether a rotation is under way."""
        return len(self._ring.keys) > 1

    def rotate(self, now: float, epoch: int) -> None:
        """Make a key and seal with it from now on. It is on disk before anything is sealed with it."""
        ring = self._ring.rotated(now, epoch)
        self._file.save(ring)
        self._ring = ring
        self._sealer.use(ring.current.id, ring.current.key)

    def reseal(self, after: int) -> int | None:
        """One batch; where to go on, or None when nothing is left."""
        return self.storage.reseal(after, RESEAL_BATCH)

    def forget_older(self) -> None:
        """Once everything was sealed anew."""
        ring = self._ring.only_current()
        self._file.save(ring)
        self._ring = ring
        self._sealer.forget_older()

    def relock(self, master: LockKey | None) -> None:
        """Lock the keyring's file with the machine's master key, or open it; so too what was set aside with a damaged
        log (see `rejoin`), which would tell as much."""
        before = self._file.master
        self._file.relock(master)
        for path in sorted(self._directory.glob(self._set_aside)):
            with contextlib.suppress(StorageCorrupt, PyswarmError):  # it holds no keys, or none that we could open
                KeyringFile(path, before or master).relock(master)


async def run_rotation(at_rest: AtRest, disk: Disk, store: Store, now: Callable[[], float]) -> None:
    """For ever: replace the key when the cluster counts one more rotation, or when it is old."""
    changed = asyncio.Event()

    def notice(_: int, events: tuple[Event, ...]) -> None:
        if any(isinstance(event.object, Cluster) for event in events):
            changed.set()

    unsubscribe = store.subscribe(notice)
    try:
        while True:
            changed.clear()
            wait_s = await _rotate_if_due(at_rest, disk, store, now)
            try:
                async with asyncio.timeout(wait_s):
                    await changed.wait()
            except TimeoutError:
                pass
    finally:
        unsubscribe()


async def _rotate_if_due(at_rest: AtRest, disk: Disk, store: Store, now: Callable[[], float]) -> float:
    """Returns how long to wait for news."""
    cluster = store.view.cluster
    epoch = cluster.encryption_epoch if cluster is not None else 0
    if not at_rest.is_due(now(), epoch) and not at_rest.has_older_keys:
        return _LOOK_AGAIN_S
    try:
        if at_rest.is_due(now(), epoch):
            await disk.on_disk(lambda: at_rest.rotate(now(), epoch))
        after: int | None = 0
        while after is not None:
            start = after
            after = await disk.on_disk(lambda start=start: at_rest.reseal(start))  # type: ignore[misc]
        await disk.on_disk(at_rest.forget_older)
    except (StorageFull, OSError) as error:
        _log.warning("the log's key cannot be replaced now: %s", error)
        return _RETRY_S
    _log.info("the log on disk has a new key")
    return _LOOK_AGAIN_S
