"""One write to the disk: under way, done, or waiting for room.

A write that found the disk full left nothing behind, so it is made again, about once a second, until there is room; the
core meanwhile has nothing persisted, hence acknowledges nothing, votes for nobody and leads nobody anywhere. Every
other failure is raised, and ends the process. What a member with a full disk still may do, the loop decides.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from pyswarm_manager.raft.storage.port import StorageFull

RETRY_S = 1.0


class Write:
    """`start` makes it, and makes it again; `now` counts ticks."""

    def __init__(self, start: Callable[[], Future[None]], retry_ticks: int) -> None:
        self._start = start
        self._retry_ticks = retry_ticks
        self._retry_at: int | None = None
        self.future = start()
        self.problem = ""
        """Why it is not made; empty unless it waits for room."""

    def is_done(self, now: int) -> bool:
        """Whether it is on disk. Raises whatever else than a full disk went wrong."""
        if not self.future.done():
            return False
        error = self.future.exception()
        if not isinstance(error, StorageFull):
            self.future.result()
            self.problem = ""
            return True
        self.problem = str(error)
        if self._retry_at is None:
            self._retry_at = now + self._retry_ticks
        elif now >= self._retry_at:
            self._retry_at = None
            self.future = self._start()
        return False
