"""Looks after the host's networks: what somebody or something else took away is put back.

The overlay hears of changes, compares the kernel with what is wanted and repairs it; this says what was wrong: in the
log, each thing once and not too many at a time, and to the managers, whose events show it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from msgspec.structs import replace

from pyswarm_common.model import NodeDescription
from pyswarm_overlay.reports import Finding

_log = logging.getLogger(__name__)

MAX_LINES = 20
"""Of the log, in each period of `LINES_PERIOD_S`; more is only counted."""
LINES_PERIOD_S = 10.0
NEWS_PERIOD_S = 10.0
MAX_NEWS = 300


class RepairNews:
    """What the managers are told, for their events: how many repairs there were, and what the last one was."""

    def __init__(self) -> None:
        self.count = 0
        self.last = ""
        self._is_new = asyncio.Event()

    def tell(self, finding: Finding) -> None:
        self.count += finding.is_repaired
        self.last = sentence(finding)[:MAX_NEWS]
        self._is_new.set()

    def described(self, description: NodeDescription) -> NodeDescription:
        return replace(description, network_repairs=self.count, network_repair=self.last)

    async def run(self, tell: Callable[[], None]) -> None:
        """For ever: `tell` once for all that happened, and not too often."""
        while True:
            await self._is_new.wait()
            self._is_new.clear()
            tell()
            await asyncio.sleep(NEWS_PERIOD_S)


class Watchable(Protocol):
    """What is needed of the overlay."""

    def watch(self, period_s: float, is_busy: Callable[[], bool]) -> AsyncIterator[Finding]: ...


class Lines:
    """What is said in the log, bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._said = 0
        self._held_back = 0

    def say(self, finding: Finding) -> None:
        now = self._clock()
        if now - self._since >= LINES_PERIOD_S:
            if self._held_back:
                _log.warning("networks: %d more repairs were not named", self._held_back)
            self._since, self._said, self._held_back = now, 0, 0
        if self._said >= MAX_LINES:
            self._held_back += 1
            return
        self._said += 1
        _log.warning("%s", sentence(finding))


def sentence(finding: Finding) -> str:
    """One line for people."""
    kind, key = finding.place
    where = " ".join(filter(None, (kind, finding.name or key[:12])))
    if finding.is_repaired:
        return f"networks repaired: {where}: {'; '.join(finding.problems)}"
    return f"networks cannot be repaired yet: {where}: {'; '.join(finding.left)}"


async def watch_networks(
    overlay: Watchable,
    is_busy: Callable[[], bool],
    period_s: float,
    tell: Callable[[Finding], None] = lambda finding: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """For ever. `tell` hears of every finding."""
    lines = Lines(clock)
    async for finding in overlay.watch(period_s, is_busy):
        lines.say(finding)
        tell(finding)
