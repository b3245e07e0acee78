"""Looks after the host's networks: what somebody or something else took away is put back.

The overlay compares the kernel with what is wanted and repairs it; this decides when, and says what was wrong. It waits
while networks are being changed, since the kernel then lags behind what is wanted without any damage; but not for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from pyswarm_common.errors import PyswarmError

_log = logging.getLogger(__name__)

_FIRST_AFTER_S = 2.0
_BUSY_PAUSE_S = 0.2


class Verifiable(Protocol):
    """What is needed of the overlay."""

    async def verify(self) -> list[str]: ...


async def watch_networks(overlay: Verifiable, is_busy: Callable[[], bool], period_s: float) -> None:
    """For ever: soon after the start, then once per period. A failure is said once, until there is another."""
    problem = ""
    await asyncio.sleep(min(_FIRST_AFTER_S, period_s))
    while True:
        await _wait_quiet(is_busy, period_s)
        try:
            for repaired in await overlay.verify():
                _log.warning("networks repaired: %s", repaired)
            problem = ""
        except PyswarmError as error:
            if str(error) != problem:
                _log.warning("networks cannot be verified: %s", error)
            problem = str(error)
        await asyncio.sleep(period_s)


async def _wait_quiet(is_busy: Callable[[], bool], at_most_s: float) -> None:
    waited_s = 0.0
    while is_busy() and waited_s < at_most_s:
        await asyncio.sleep(_BUSY_PAUSE_S)
        waited_s += _BUSY_PAUSE_S
