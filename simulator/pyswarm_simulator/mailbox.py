"""A queue from the world into a process: anybody puts, one coroutine of the process gets."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from pyswarm_simulator.world import ProcessLoop

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Unbounded: the run is short, and both ends are ours."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._loop = loop
        self._items: deque[T | BaseException] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: T | BaseException) -> None:
        """An exception is raised to the reader, when its turn comes."""
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done() and self._loop.is_alive:
            self._waiter.set_result(None)

    async def get(self) -> T:
        while not self._items:
            self._waiter = self._loop.create_future()
            await self._waiter
        item = self._items.popleft()
        if isinstance(item, BaseException):
            raise item
        return item
