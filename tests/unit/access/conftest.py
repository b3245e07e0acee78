import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))  # the harness serves all of them

from manager_harness import Swarm, running_swarm

from pyswarm_common import rpc


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake may take longer than the managers would wait for one another."""
    patient = [("grpc.min_reconnect_backoff_ms", 10_000)]
    options = [option for option in rpc.CHANNEL_OPTIONS if option[0] != patient[0][0]]
    monkeypatch.setattr(rpc, "CHANNEL_OPTIONS", (*options, *patient))


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    """One manager."""
    async with running_swarm(1) as one:
        yield one


@pytest.fixture
async def swarm3() -> AsyncIterator[Swarm]:
    """Three managers."""
    async with running_swarm(3) as three:
        yield three
