"""Automatic backups: every manager makes its own, on its own disk, as often as the cluster's spec says.

Decides when the next one is due (from the newest that is there, so that what was missed while the manager was down is
made soon after its start) and which ones go. A failure is logged, shown by `Backup.ListBackups` and tried again; it
never ends the manager. The files stay when the node leaves the cluster.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyswarm_common.errors import PyswarmError
from pyswarm_common.model import Cluster
from pyswarm_manager.backup.directory import Kept, listed, name_of, newest_of, prune
from pyswarm_manager.backup.key import require_key
from pyswarm_manager.backup.making import Maker, SealedWith
from pyswarm_manager.ports import Clock
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Kind
from pyswarm_manager.writes import FollowedStore

_log = logging.getLogger(__name__)
R = TypeVar("R")

RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class Status:
    """How it goes."""

    next_at: float = 0.0
    """0: none is planned."""
    error: str = ""
    failed_at: float = 0.0


def due_at(newest: float, interval_s: float, now: float, earliest: float) -> float:
    """When the next backup is to be made: an interval after the newest, but not before `earliest`. A newest one from
    the future (the clock was set back) counts as made now."""
    return max(earliest, min(newest, now) + interval_s)


class AutomaticBackups:
    """One per manager; `run` it until the manager ends."""

    def __init__(
        self, store: FollowedStore, maker: Maker, directory: Path, clock: Clock, settle_s: float | None = None
    ) -> None:
        self._store, self._maker, self._directory, self._clock = store, maker, directory, clock
        # Not all managers at once after a power cut, and not while they have more urgent things to do.
        self._earliest = clock() + (60.0 + random.random() * 60.0 if settle_s is None else settle_s)
        self._spec_changed = asyncio.Event()
        self.status = Status()

    @property
    def directory(self) -> Path:
        return self._directory

    async def list(self) -> list[Kept]:
        """What is there, newest first."""
        return await self._blocking(functools.partial(listed, self._directory))

    async def run(self) -> None:
        """For ever."""
        unsubscribe = self._store.subscribe(self._on_change)
        try:
            while True:
                self._spec_changed.clear()
                try:
                    async with asyncio.timeout(await self._wait_s()):
                        await self._spec_changed.wait()
                except TimeoutError:
                    await self._attempt()
        finally:
            unsubscribe()

    def _on_change(self, index: int, events: tuple[Event, ...]) -> None:
        if any(event.kind is Kind.CLUSTER for event in events):
            self._spec_changed.set()

    async def _wait_s(self) -> float | None:
        """Until the next one; None while there are to be none."""
        cluster = self._store.view.cluster
        if cluster is None or not cluster.spec.backup_interval_s:
            self.status = Status()
            return None
        now = self._clock()
        newest = newest_of(await self.list(), cluster.id)
        next_at = due_at(newest, cluster.spec.backup_interval_s, now, self._earliest)
        if self.status.error:
            next_at = max(next_at, self.status.failed_at + RETRY_S)
        self.status = Status(next_at, self.status.error, self.status.failed_at)
        return max(0.0, next_at - now)

    async def _attempt(self) -> None:
        cluster = self._store.view.cluster
        if cluster is None or not cluster.spec.backup_interval_s:
            return
        try:
            await self._make(cluster)
        except (PyswarmError, OSError) as error:
            _log.error("the automatic backup failed and is tried again in %.0f s: %s", RETRY_S, error)
            self.status = Status(0.0, str(error), self._clock())
        else:
            self.status = Status()

    async def _make(self, cluster: Cluster) -> None:
        captured = await self._maker.capture()
        path = self._directory / name_of(cluster.id, captured.index, self._clock())
        await self._blocking(functools.partial(self._directory.mkdir, mode=0o700, parents=True, exist_ok=True))
        size = await self._maker.write_file(captured, SealedWith(require_key(captured.cluster)), path)
        await self._blocking(functools.partial(prune, self._directory, cluster.id, cluster.spec.backups_kept))
        _log.info("automatic backup made: %s (%d bytes, index %d)", path, size, captured.index)

    async def _blocking(self, call: Callable[[], R]) -> R:
        return await self._maker.in_thread(call)
