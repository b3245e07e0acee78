"""What only the leader does, as one group of loops that begins and ends with its term.

A loop that ends because leadership was lost ends the group, and nothing more. A loop that fails in any other way has
met a bug: the process ends, another manager leads, and the daemon starts this one again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence

from pyswarm_common.errors import Unavailable, Unknown
from pyswarm_manager.raft.driver import RaftNode

_log = logging.getLogger(__name__)

Loop = Callable[[], Awaitable[None]]
_PAUSE_S = 0.1


async def lead_while_leader(raft: RaftNode, loops: Sequence[Loop]) -> None:
    """Run the loops in each term that this member leads, until Raft stops."""
    async for leadership in raft.subscribe_leadership():
        if not leadership.is_leader:
            leader = raft.leader_address
            _log.info("term %d: following %s", leadership.term, leader or "nobody yet")
            continue
        _log.info("term %d: leading", leadership.term)
        while raft.leadership == leadership:
            await _one_group(raft, loops)


async def _one_group(raft: RaftNode, loops: Sequence[Loop]) -> None:
    leadership = raft.leadership
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(_run(loop)) for loop in loops]
            await raft.wait_leadership_change(leadership)
            for task in running:
                task.cancel()
    except* (Unavailable, Unknown) as lost:
        _log.info("the leader's loops stopped: %s", "; ".join(dict.fromkeys(_sentences(lost))))
        await asyncio.sleep(_PAUSE_S)  # if this member still leads, it begins again
        await raft.wait_writable()


async def _run(loop: Loop) -> None:
    await loop()


def _sentences(error: BaseException) -> Iterator[str]:
    """What the errors of a group say, whatever their nesting."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _sentences(inner)
    else:
        yield str(error)
