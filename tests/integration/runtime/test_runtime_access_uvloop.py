"""Copies into containers on the event loop that daemons run on: it has errors of its own for pipes that are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvloop
from test_runtime_access import archive_of, idle, once

from pyswarm_common.errors import InvalidArgument
from pyswarm_runtime import Runtime

pytestmark = [pytest.mark.root, pytest.mark.filterwarnings("ignore::pytest.PytestDeprecationWarning")]


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


async def test_a_refusal_in_the_middle_of_a_long_copy_is_told(runtime: Runtime) -> None:
    """The sender goes on for a while after the other end has refused and is gone."""
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    container_id = await idle(runtime)
    await runtime.access.write_archive(container_id, "/data", once(archive_of(a=b"kept")))

    async def chunks() -> AsyncIterator[bytes]:
        data = archive_of(b=b"x")
        yield data
        for _ in range(20):
            await asyncio.sleep(0.05)  # the refusal comes meanwhile, and what it was written to is closed
            yield data

    with pytest.raises(InvalidArgument, match="cannot overwrite non-directory /data/d/a with directory"):
        await runtime.access.write_archive(container_id, "/data/d/a", chunks())
