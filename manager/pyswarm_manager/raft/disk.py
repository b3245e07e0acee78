"""What is being written: one save of the core, and one snapshot of our own, in one thread in the order of the calls.

A full disk makes the member read-only: the save waits for room, and with it every promise. Any other failure is raised
where it is noticed, and ends the process. What is in a save, and what follows from it, others decide.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial

from pyswarm_manager.raft.core.raft import Persist
from pyswarm_manager.raft.core.types import Snapshot
from pyswarm_manager.raft.storage.port import RaftStorage
from pyswarm_manager.raft.writes import Write

_log = logging.getLogger(__name__)


class Disk:
    """`tell` is called in the thread of the disk whenever a write has ended."""

    def __init__(self, storage: RaftStorage, writer: Executor, retry_ticks: int, tell: Callable[[], None]) -> None:
        self._storage, self._writer, self._retry_ticks, self._tell = storage, writer, retry_ticks, tell
        self._saving: tuple[Persist, Write] | None = None
        self._deferred: Persist | None = None
        self._compacting: tuple[int, Write] | None = None

    @property
    def is_saving(self) -> bool:
        """A save is under way, or about to be."""
        return self._saving is not None or self._deferred is not None

    @property
    def has_deferred(self) -> bool:
        return self._deferred is not None

    @property
    def is_compacting(self) -> bool:
        return self._compacting is not None

    def defer(self, persist: Persist) -> None:
        """Save this when `begin_deferred` is called."""
        self._deferred = persist

    def begin_deferred(self) -> None:
        """The disk begins once the messages of the same turn are on their way: in Python the two would not run side by
        side but take turns, and the followers' syncs would begin later."""
        if self._deferred is not None:
            persist, self._deferred = self._deferred, None
            self.save(persist)

    def save(self, persist: Persist) -> None:
        """Begin to."""
        self._saving = (
            persist,
            self.write(partial(self._storage.save, persist.hard_state, persist.entries, persist.snapshot)),
        )

    def compact(self, snapshot: Snapshot, first_kept: int) -> None:
        """Begin to store our own snapshot, and to forget what is before it."""
        self._compacting = snapshot.index, self.write(partial(self._storage.save_snapshot, snapshot, first_kept))

    def write(self, work: Callable[[], None]) -> Write:
        """Begin any other write."""
        return Write(partial(self._in_writer, work), self._retry_ticks)

    def _in_writer(self, work: Callable[[], None]) -> Future[None]:
        """Run in the one thread that uses the disk, in the order of the calls. One hop there and one back."""
        future = self._writer.submit(work)
        future.add_done_callback(lambda _: self._tell())
        return future

    def saved(self, now: int) -> Persist | None:
        """The save, once, when it is on disk; `now` counts ticks. Raises why it never will be."""
        if self._saving is None:
            return None
        persist, write = self._saving
        was_read_only = self.is_read_only
        is_done = write.is_done(now)
        if is_done:
            self._saving = None
        if was_read_only != self.is_read_only:
            self._room_changed()
        return persist if is_done else None

    def notice_compaction(self, now: int, snapshot_index: int) -> None:
        """Whether it is done. A leader's snapshot, which may have replaced the log meanwhile, must not be followed by
        the older one."""
        if self._compacting is not None:
            index, write = self._compacting
            is_outdated = bool(write.problem) and snapshot_index != index
            if is_outdated or write.is_done(now):
                self._compacting = None

    def _room_changed(self) -> None:
        if self.is_read_only:
            _log.error("%s: this manager is read-only until there is room", self.problem)
        else:
            _log.warning("there is room on the disk again: this manager goes on")

    @property
    def is_read_only(self) -> bool:
        """A save waits for room."""
        return self._saving is not None and bool(self._saving[1].problem)

    @property
    def problem(self) -> str:
        """What the disk keeps this member from; empty when all is well."""
        waiting = [item[1].problem for item in (self._saving, self._compacting) if item is not None]
        return next((problem for problem in waiting if problem), "")

    def refusal(self) -> str:
        """Why nothing can be written here."""
        return f"{self.problem}: free some space there; nothing is lost, and it goes on by itself"

    async def finish(self) -> None:
        """Nothing may use the disk after we stop."""
        under_way = [item[1].future for item in (self._compacting, self._saving) if item is not None]
        await asyncio.gather(*map(asyncio.wrap_future, under_way), return_exceptions=True)
        self._saving = self._compacting = self._deferred = None
