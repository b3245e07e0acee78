"""When the overlay is told that links or routes changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from pyswarm_common.errors import Unavailable
from pyswarm_node.kernel_news import LINKS, kernel_news
from pyswarm_node.underlay_watch import watch_underlay


class Overlay:
    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)
        self.looks = 0

    async def follow_underlay(self) -> bool:
        self.looks += 1
        if problem := self.problems.pop(0):
            raise Unavailable(problem)
        return True


async def news(count: int) -> AsyncIterator[None]:
    for _ in range(count):
        yield


async def test_a_failure_is_said_once_and_looked_at_again(caplog: pytest.LogCaptureFixture) -> None:
    overlay = Overlay("busy", "busy", "", "busy", "gone")
    with caplog.at_level(logging.WARNING):
        await watch_underlay(overlay, news(5))
    assert overlay.looks == 5
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["busy", "busy", "gone"]


async def test_without_news_it_is_time_to_look_now_and_then() -> None:
    async with asyncio.timeout(10):
        async for _ in kernel_news(LINKS, 0.0, 0.01):
            break
