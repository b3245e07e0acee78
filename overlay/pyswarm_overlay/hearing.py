"""Hears changes while a loop is busy with something else, and keeps them until it asks. Bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .kernel.monitor import Change, Monitor

_MOST = 10_000
_TOGETHER_S = 0.05


class Hearing:
    """Use `listening`."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._heard: set[Change] = set()
        self._lost = False
        self._any = asyncio.Event()

    def listen(self) -> None:
        """Called when the kernel has something to tell."""
        changes = self._monitor.read()
        self._lost = self._lost or changes is None or len(self._heard) > _MOST
        self._heard |= changes or set()
        self._any.set()

    def take(self) -> set[Change] | None:
        """What was heard since the last call; None: some of it was lost."""
        heard, lost = self._heard, self._lost
        self._heard, self._lost = set(), False
        self._any.clear()
        return None if lost else heard

    async def wait(self, at_most_s: float) -> None:
        """Until something is heard."""
        try:
            async with asyncio.timeout(at_most_s):
                await self._any.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_TOGETHER_S)  # more follows


@asynccontextmanager
async def listening() -> AsyncIterator[Hearing]:
    loop, monitor = asyncio.get_running_loop(), Monitor()
    hearing = Hearing(monitor)
    try:
        for fileno in monitor.filenos():
            loop.add_reader(fileno, hearing.listen)
        yield hearing
    finally:
        for fileno in monitor.filenos():
            loop.remove_reader(fileno)
        monitor.close()
