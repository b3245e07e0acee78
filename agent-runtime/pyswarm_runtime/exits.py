"""Tells everybody who asked that a container ended. Bounded: who does not listen is let go, and told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pyswarm_common.errors import Exhausted
from pyswarm_runtime.types import ContainerState

QUEUE_LENGTH = 4096


class ExitBroadcast:
    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[ContainerState | None]] = set()
        self._is_closed = False

    def subscribe(self) -> AsyncIterator[ContainerState]:
        """Begins with the call, not with the first look; so nothing is missed in between."""
        queue: asyncio.Queue[ContainerState | None] = asyncio.Queue(QUEUE_LENGTH)
        if self._is_closed:
            queue.put_nowait(None)
        self._queues.add(queue)
        return self._iterate(queue)

    def publish(self, state: ContainerState) -> None:
        for queue in self._queues:
            _put(queue, state)

    def close(self) -> None:
        self._is_closed = True
        for queue in self._queues:
            _put(queue, None)

    async def _iterate(self, queue: asyncio.Queue[ContainerState | None]) -> AsyncIterator[ContainerState]:
        try:
            while (state := await queue.get()) is not None:
                yield state
            if not self._is_closed:
                raise Exhausted("too many exits were not taken in time: list the containers, then ask for exits again")
        finally:
            self._queues.discard(queue)


def _put(queue: asyncio.Queue[ContainerState | None], item: ContainerState | None) -> None:
    """Full: the end mark takes the place of what was not taken."""
    try:
        queue.put_nowait(item)
    except asyncio.QueueFull:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)
