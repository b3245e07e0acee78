"""What a replicated store must be able to do to be measured, and the clients that measure it.

Every system has three members on loopback (or in namespaces) with logs on the same disk. A write sets 256 bytes in an
object of the client's own and is answered once it is committed; a read is linearizable. Nothing here knows a system.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

VALUE_BYTES = 256
Call = Callable[[], Awaitable[None]]


class System(Protocol):
    """Three members, started and joined."""

    name: str
    attempt_s: float | None
    """How long a write may wait while nobody leads before it is asked anew; None: its client sees to that."""

    async def leader(self) -> int:
        """The member that leads, as soon as one does."""
        ...

    def client(self, member: int, owner: str) -> contextlib.AbstractAsyncContextManager[Client]:
        """A client of one member, with an object of its own called `owner`."""
        ...

    async def kill(self, member: int) -> None:
        """kill -9, without waiting for anything."""
        ...

    async def revive(self, member: int) -> None:
        """Start it again, and wait until it follows."""
        ...

    def memory_mib(self) -> list[float]:
        """Proportional set size of each member."""
        ...


class Client(Protocol):
    """Calls raise what they like when they are refused."""

    async def create(self, name: str) -> None:
        """One more object, kept."""
        ...

    async def write(self, value: str) -> None: ...

    async def read(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls in a closed loop of so many clients."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def rate(clients: Sequence[Call], seconds: float) -> Rate:
    """Every client calls again as soon as it is answered."""
    latencies: list[float] = []

    async def repeat(call: Call, end: float) -> None:
        while (began := time.perf_counter()) < end:
            await call()
            latencies.append(time.perf_counter() - began)

    start = time.perf_counter()
    await asyncio.gather(*(repeat(call, start + seconds) for call in clients))
    elapsed = time.perf_counter() - start
    latencies.sort()
    return Rate(
        round(len(latencies) / elapsed),
        round(latencies[len(latencies) // 2] * 1e3, 2),
        round(latencies[int(len(latencies) * 0.99)] * 1e3, 2),
    )


@contextlib.asynccontextmanager
async def clients(system: System, member: int, count: int, prefix: str) -> AsyncIterator[list[Client]]:
    """So many of them."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(system.client(member, f"{prefix}{i}")) for i in range(count)]


async def failover_s(system: System, number: int) -> float:
    """kill -9 of the leader until a write through another member is answered."""
    leader = await system.leader()
    survivor = (leader + 1) % 3
    async with system.client(survivor, f"failover{number}") as client:
        await client.write("before")
        start = time.perf_counter()
        await system.kill(leader)
        await _until_written(client, system.attempt_s)
        seconds = time.perf_counter() - start
    await system.revive(leader)
    return seconds


async def _until_written(client: Client, attempt_s: float | None) -> None:
    attempt = 0
    while True:
        attempt += 1
        try:
            async with asyncio.timeout(attempt_s):
                return await client.write(f"after{attempt}")
        except (OSError, TimeoutError, RefusedError):
            await asyncio.sleep(0.01)


class RefusedError(Exception):
    """The member answered that it cannot, for now."""
