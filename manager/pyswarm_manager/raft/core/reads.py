"""Linearizable reads without a log entry (ReadIndex, thesis §6.4).

A read waits here until the leader has committed in its own term, then takes the commit index, and is released once a
majority answered a heartbeat that was sent after the read arrived. One round serves every read that waits for it.
"""

from __future__ import annotations

from collections import deque

import msgspec


class WaitingRead(msgspec.Struct, gc=False):
    """A read on the leader; `origin` is the member that asked."""

    context: int
    origin: int
    index: int = 0
    round: int = 0  # 0: not yet assigned


class ReadQueue:
    """The reads of one term of leadership."""

    __slots__ = ("_assigned", "_fresh", "_limit", "round")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._fresh: deque[WaitingRead] = deque()
        self._assigned: deque[WaitingRead] = deque()
        self.round = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a round is under way."""
        return bool(self._assigned)

    def add(self, read: WaitingRead) -> bool:
        """Queue a read; False if there are too many, in which case the caller asks again later."""
        if len(self._fresh) + len(self._assigned) >= self._limit:
            return False
        self._fresh.append(read)
        return True

    def start_round(self, commit: int) -> bool:
        """Begin a heartbeat round for the reads that wait, unless one is under way."""
        if not self._fresh or self._assigned:
            return False
        self.round += 1
        for read in self._fresh:
            read.index, read.round = commit, self.round
        self._assigned, self._fresh = self._fresh, deque()
        return True

    def confirmed(self, round_: int) -> list[WaitingRead]:
        """A majority answered `round_`: the reads which that releases."""
        released = []
        while self._assigned and self._assigned[0].round <= round_:
            released.append(self._assigned.popleft())
        return released
