"""Swarms of managers for a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
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
