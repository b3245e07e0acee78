"""How long a task that is to stop goes on: until it serves nobody, and never for long.

When an agent is told to stop a task, no load balancer opens connections to it any more (the managers have waited for
that). Requests that are under way, or whose first packet is, may finish: many servers end at once when they are told
to, and would drop them. What takes longer than the task's stop grace period (some requests never end: whoever waits for
news leaves one open) is the server's to finish, after its stop signal. Decides only when; never stops anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LOOK_EVERY_S = 0.05
QUIET_LOOKS = 2
"""As many looks in a row at which it serves nobody: a packet on its way arrives between two of them."""
NAMES_TTL_S = 1.0
"""For as long clients may use an address that a name led to: of tasks that are found by name only."""


async def linger(served: Callable[[], Awaitable[int]], longest_s: float, *, by_name: bool) -> None:
    """Return when the task may get its stop signal."""
    now = asyncio.get_running_loop().time
    deadline = now() + longest_s
    if by_name:
        await asyncio.sleep(min(longest_s, NAMES_TTL_S))
    quiet = 0
    while now() < deadline:
        quiet = 0 if await served() else quiet + 1
        if quiet == QUIET_LOOKS:
            return
        await asyncio.sleep(LOOK_EVERY_S)
