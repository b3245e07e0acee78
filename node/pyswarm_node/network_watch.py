"""Looks after the host's networks: what somebody or something else took away is put back.

The overlay compares the kernel with what is wanted and repairs it; this decides when, and says what was wrong.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from pyswarm_common.errors import PyswarmError

_log = logging.getLogger(__name__)

_FIRST_AFTER_S = 2.0


class Verifiable(Protocol):
    """What is needed of the overlay."""

    async def verify(self) -> list[str]: ...


async def watch_networks(overlay: Verifiable, period_s: float) -> None:
    """For ever: soon after the start, then once per period. A failure is said once, until there is another."""
    problem = ""
    await asyncio.sleep(min(_FIRST_AFTER_S, period_s))
    while True:
        try:
            for repaired in await overlay.verify():
                _log.warning("networks repaired: %s", repaired)
            problem = ""
        except PyswarmError as error:
            if str(error) != problem:
                _log.warning("networks cannot be verified: %s", error)
            problem = str(error)
        await asyncio.sleep(period_s)
