"""When networks are verified, and what is said of it."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm_common.errors import Unavailable
from pyswarm_node import network_watch
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
    watch = asyncio.create_task(watch_networks(networks, lambda: False, 0.001))
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


@pytest.mark.parametrize("busy_for", [1, 1_000_000])
async def test_networks_that_are_being_changed_are_left_alone_but_not_for_ever(
    busy_for: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_watch, "_BUSY_PAUSE_S", 0.004)
    networks, asked = Networks(), 0

    def is_busy() -> bool:
        nonlocal asked
        asked += 1
        return asked <= busy_for

    watch = asyncio.create_task(watch_networks(networks, is_busy, 0.01))
    async with asyncio.timeout(20):
        await networks.done.wait()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    assert asked >= 2  # it looked again before it verified
