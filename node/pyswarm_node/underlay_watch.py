"""Has the overlay follow the machine's links and routes: the MTU of the ways to the other nodes may have changed.

Decides only when to look. Containers' interfaces are news as well, so it looks at most once in a moment.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Protocol

from pyswarm_common.errors import PyswarmError

from .kernel_news import LINKS, ROUTES, kernel_news

_log = logging.getLogger(__name__)

_SETTLE_S = 1.0
_LOOK_AGAIN_S = 60.0


class Following(Protocol):
    """What is needed of the overlay."""

    async def follow_underlay(self) -> bool: ...


def underlay_changes() -> AsyncIterator[None]:
    """Of links and routes."""
    return kernel_news(LINKS | ROUTES, _SETTLE_S, _LOOK_AGAIN_S)


async def watch_underlay(overlay: Following, changes: AsyncIterator[None]) -> None:
    """For ever. A failure is said once, until there is another."""
    problem = ""
    async for _ in changes:
        try:
            await overlay.follow_underlay()
            problem = ""
        except PyswarmError as error:
            if str(error) != problem:
                _log.warning("the MTU of overlay networks cannot follow that of the ways to other nodes: %s", error)
            problem = str(error)
