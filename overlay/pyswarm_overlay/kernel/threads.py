"""Run a blocking function in a short-lived thread of its own, a bounded number at a time.

A thread that entered another network namespace must never be used again for anything else, so there is no pool: each
call gets a thread that ends with it (about 0.1 ms). At the bound, callers wait in order. A cancelled caller still waits
for its thread, so that a lock held around the call is never released while the kernel is being changed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEFAULT_LIMIT = 4


class Threads:
    """Starts short-lived threads, at most `limit` at once."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._slots = asyncio.Semaphore(limit)

    async def run(self, function: Callable[[], T]) -> T:
        async with self._slots:
            future = _start(asyncio.get_running_loop(), function)
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                await asyncio.wait([future])
                if not future.cancelled():
                    future.exception()  # retrieved, so that asyncio does not report it: the caller has gone
                raise


def _start(loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> asyncio.Future[T]:
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        try:
            result = function()
        except BaseException as error:  # it belongs to the caller, whatever it is
            loop.call_soon_threadsafe(settle, None, error)
        else:
            loop.call_soon_threadsafe(settle, result, None)

    threading.Thread(target=body, name="overlay", daemon=True).start()
    return future
