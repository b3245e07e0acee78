"""Copies into containers that are refused: the sender is told why."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pyswarm.v1 import exec_pb2 as pb
from pyswarm_common.errors import NotFound
from pyswarm_common.model import Task
from pyswarm_worker.entering import Entering


def _nothing_here(task_id: str) -> tuple[Task, str]:
    raise NotFound(f"task {task_id} has no container on this node")


async def test_a_refused_copy_is_told_why_once_all_was_sent() -> None:
    """A refusal in the middle of the sending may reach the sender as a failure to send."""
    sent = 0

    async def requests() -> AsyncIterator[pb.CopyToRequest]:
        nonlocal sent
        yield pb.CopyToRequest(start=pb.CopyFromRequest(target="t1", path="/data"))
        for _ in range(5):
            sent += 1
            yield pb.CopyToRequest(data=b"x")

    with pytest.raises(NotFound, match="t1"):
        await Entering(None, _nothing_here).copy_to(requests())
    assert sent == 5
