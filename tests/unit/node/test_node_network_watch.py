"""What is said of repaired networks: everything to whoever is told, not too much in the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

import pytest

from pyswarm_node.network_watch import LINES_PERIOD_S, MAX_LINES, sentence, watch_networks
from pyswarm_overlay.reports import Finding

ROUTE = Finding(("sandbox", "0123456789abcdef"), "", ("route 10.0.0.0/24 is missing",))


class Networks:
    """Finds what it is given."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings

    async def watch(self, period_s: float, is_busy: Callable[[], bool]) -> AsyncIterator[Finding]:
        for finding in self.findings:
            yield finding


def idle() -> bool:
    return False


async def test_what_was_repaired_is_said_and_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Finding] = []
    with caplog.at_level(logging.WARNING):
        await watch_networks(Networks([ROUTE]), idle, 1.0, told.append)
    assert told == [ROUTE]
    assert [record.message for record in caplog.records] == [
        "networks repaired: sandbox 0123456789ab: route 10.0.0.0/24 is missing"
    ]


async def test_the_log_is_bounded_and_says_how_much_it_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0

    def clock() -> float:
        return now

    class Late(Networks):
        async def watch(self, period_s: float, is_busy: Callable[[], bool]) -> AsyncIterator[Finding]:
            nonlocal now
            for finding in self.findings:
                yield finding
            now += LINES_PERIOD_S
            yield ROUTE

    told: list[Finding] = []
    with caplog.at_level(logging.WARNING):
        await watch_networks(Late([ROUTE] * (MAX_LINES + 3)), idle, 1.0, told.append, clock)
    assert len(told) == MAX_LINES + 4
    messages = [record.message for record in caplog.records]
    assert len(messages) == MAX_LINES + 2
    assert messages[MAX_LINES] == "networks: 3 more repairs were not named"


def test_what_could_not_be_repaired_is_said_so() -> None:
    finding = Finding(("network", "abc"), "web", ("device br0 is missing",), ("device br0 is missing",))
    assert sentence(finding) == "networks cannot be repaired yet: network web: device br0 is missing"
