"""Who may compute now: a few sessions in each pass of the event loop, the others in those after it, in their order.

One commit may concern every session. The loop runs all that is ready before it looks at anything else, so a thousand
messages made at once would keep Raft from its heartbeats for as long as they take, which on a busy machine costs the
leader its lead. Whoever makes a message, or reads a batch of statuses, takes a turn first. Holds nothing back while
few want one.
"""

from __future__ import annotations

import asyncio
from collections import deque

PER_PASS = 16
"""Messages of a scale-up or -down take some 0.1 ms each."""


class Turns:
    """One per term."""

    def __init__(self, per_pass: int = PER_PASS) -> None:
        self._per_pass = per_pass
        self._left = per_pass
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_scheduled = False

    async def take(self) -> None:
        """Return when it is this caller's turn."""
        if self._left and not self._waiting:
            self._left -= 1
            self._schedule()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._schedule()
        await turn

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next_pass)

    def _next_pass(self) -> None:
        self._is_scheduled = False
        self._left = self._per_pass
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # its session may have ended meanwhile
                turn.set_result(None)
                self._left -= 1
        if self._left < self._per_pass:
            self._schedule()
