"""Messages from other members that the loop has not read yet. Bounded: who brings more waits, or is told when to go on.

Decides nothing. What is meant for another member is left out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pyswarm_manager.raft.core.messages import Message

READ_AT_ONCE = 1024


class Inbox:
    """One per member."""

    def __init__(self, own_id: int, max_messages: int) -> None:
        self._own_id, self._max_messages = own_id, max_messages
        self._messages: deque[Message] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._waiting: list[Callable[[], None]] = []
        self._is_closed = False

    def __bool__(self) -> bool:
        return bool(self._messages)

    @property
    def is_full(self) -> bool:
        return len(self._messages) >= self._max_messages and not self._is_closed

    def put(self, messages: Sequence[Message]) -> None:
        """However many there are already: who brings them asks `is_full` before, or `call_when_room` after."""
        self._messages.extend(message for message in messages if message.to == self._own_id)

    async def wait_room(self) -> None:
        """Return when there is room, or when nothing is read any more."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def call_when_room(self, callback: Callable[[], None]) -> bool:
        """Whether there is none now; then it is called once, as soon as there is."""
        if self.is_full:
            self._waiting.append(callback)
            return True
        return False

    def take(self) -> Iterator[Message]:
        """The next ones, a bounded number."""
        for _ in range(min(len(self._messages), READ_AT_ONCE)):
            yield self._messages.popleft()
        if not self.is_full:
            self._tell_room()

    def close(self) -> None:
        """Nothing is read any more: nobody shall wait."""
        self._is_closed = True
        self._tell_room()

    def _tell_room(self) -> None:
        if not self._room.is_set():
            self._room.set()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for callback in waiting:
                callback()
