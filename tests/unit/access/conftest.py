import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))  # the harness serves all of them

from manager_harness import Swarm, running_swarm


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
