"""A task that is to stop goes on while it serves somebody, and never for long."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm_worker import lingering


class Looks:
    """What each look finds; the last for ever."""

    def __init__(self, *found: int) -> None:
        self.found, self.made = found, 0

    async def __call__(self) -> int:
        self.made += 1
        return self.found[min(self.made, len(self.found)) - 1]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "LOOK_EVERY_S", 0.0)


async def test_it_waits_until_it_serves_nobody_twice_in_a_row() -> None:
    looks = Looks(2, 1, 0, 1, 0, 0)
    await lingering.linger(looks, 10.0, by_name=False)
    assert looks.made == 6


async def test_a_request_that_never_ends_is_not_waited_for() -> None:
    async with asyncio.timeout(10):
        await lingering.linger(Looks(1), 0.05, by_name=False)


async def test_without_a_grace_it_stops_at_once() -> None:
    looks = Looks(1)
    await lingering.linger(looks, 0.0, by_name=True)
    assert looks.made == 0


async def test_what_is_found_by_name_goes_on_as_long_as_the_name_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr(lingering.asyncio, "sleep", sleep)
    await lingering.linger(Looks(0), 10.0, by_name=True)
    assert slept[0] == lingering.NAMES_TTL_S
