"""How long a task that is to stop goes on: until nobody is connected to it, and never for long.

When an agent is told to stop a task, no load balancer opens connections to it any more (the managers have waited for
that). Those that are open, or whose first packet is still on its way, may finish: many servers end at once when they
are told to, and would drop them. What takes longer is the server's to finish, after its stop signal. Decides only when;
never stops anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LONGEST_S = 2.0
"""A client may keep its connection for ever, idle: nobody waits for that."""
LOOK_EVERY_S = 0.05
QUIET_LOOKS = 2
"""As many looks in a row without a connection: a packet on its way arrives between two of them."""
NAMES_TTL_S = 1.0
"""For as long clients may use an address that a name led to: of tasks that are found by name only."""


async def linger(connections: Callable[[], Awaitable[int]], longest_s: float, *, by_name: bool) -> None:
    """Return when the task may get its stop signal."""
    now = asyncio.get_running_loop().time
    deadline = now() + min(longest_s, LONGEST_S)
    if by_name:
        await asyncio.sleep(min(longest_s, NAMES_TTL_S))
    quiet = 0
    while now() < deadline:
        quiet = 0 if await connections() else quiet + 1
        if quiet == QUIET_LOOKS:
            return
        await asyncio.sleep(LOOK_EVERY_S)
