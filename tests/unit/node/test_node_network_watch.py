"""When networks are verified, and what is said of it."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm_common.errors import Unavailable
from pyswarm_node.network_watch import watch_networks


class Networks:
    """Answers what it is told to, then says that it was asked often enough."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self._answers = list(answers)
        self.done = asyncio.Event()

    async def verify(self) -> list[str]:
        if not self._answers:
            self.done.set()
            return []
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_what_was_repaired_is_said_and_a_failure_once(caplog: pytest.LogCaptureFixture) -> None:
    broken = Unavailable("the kernel is busy")
    networks = Networks([], ["bridge br0 was missing"], broken, broken, [], broken)
    watch = asyncio.create_task(watch_networks(networks, 0.001))
    async with asyncio.timeout(20):
        await networks.done.wait()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    failed = "networks cannot be verified: the kernel is busy"
    assert [record.message for record in caplog.records] == [
        "networks repaired: bridge br0 was missing",
        failed,
        failed,
    ]
