"""Virtual time: one queue of what happens when, and an asyncio event loop for each simulated process.

The world runs whatever is next, one callback at a time, and moves its clock only when nothing is left to do at the
present moment. Each process has a loop of its own, so that it can stand still, or end between two callbacks as after
`kill -9`: nothing of it runs any more, not even a `finally`. All chance comes from one generator, so that a seed
determines everything. Knows nothing of clusters.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from typing import Any

EPOCH = 1_790_000_000.0
"""What calendars show when a run begins."""
MAX_CALLBACKS_PER_MOMENT = 100_000
"""More without any time passing is a loop that never rests."""


class NeverRests(AssertionError):
    """Something goes on for ever without time passing."""


class World:
    """The clock, the queue and the dice."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.callbacks = 0
        self.after: Callable[[ProcessLoop], None] = lambda loop: None
        """Called after each callback of a process."""
        self._queue: list[tuple[float, int, ProcessLoop | None, Any]] = []
        self._sequence = 0
        self._ready: deque[tuple[ProcessLoop, asyncio.Handle]] = deque()
        self._running: ProcessLoop | None = None

    # -- time ----------------------------------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something of the world itself (a packet arrives, a disk is done) at that time."""
        self._push(when, None, action)

    def after_s(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something that much later."""
        self._push(self.now + delay_s, None, action)

    def chance(self, probability: float) -> bool:
        """Whether it happens this time."""
        return probability > 0 and self.rng.random() < probability

    def run_until(self, end: float) -> None:
        """Let everything happen that happens up to `end`."""
        try:
            while True:
                self._run_ready()
                if not self._queue or self._queue[0][0] > end:
                    break
                self._take_next()
        finally:
            self._enter(None)
        self.now = end

    def _take_next(self) -> None:
        when, _, loop, action = heapq.heappop(self._queue)
        self.now = max(self.now, when)
        if loop is None:
            self._enter(None)
            action()
        else:
            loop.due(action)

    def _run_ready(self) -> None:
        budget = self.callbacks + MAX_CALLBACKS_PER_MOMENT
        ready = self._ready
        while ready:
            loop, handle = ready.popleft()
            if not loop.is_alive or handle.cancelled():
                continue
            if loop.is_frozen:
                loop.held.append(handle)
                continue
            if loop is not self._running:
                self._enter(loop)
            handle._run()
            self.callbacks += 1
            self.after(loop)
            if self.callbacks > budget:
                raise NeverRests(f"{loop.name} runs on and on at {self.now:.6f} s: {handle!r}")

    def _enter(self, loop: ProcessLoop | None) -> None:
        self._running = loop
        events._set_running_loop(loop)
        sys.set_asyncgen_hooks(finalizer=None if loop is None else loop.finish_generator)

    # -- for the loops -------------------------------------------------------------------------------------------------

    def make_ready(self, loop: ProcessLoop, handle: asyncio.Handle) -> None:
        """Run it at this moment, after what is ready already."""
        self._ready.append((loop, handle))

    def _push(self, when: float, loop: ProcessLoop | None, action: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (when, self._sequence, loop, action))

    def push_timer(self, when: float, loop: ProcessLoop, handle: asyncio.TimerHandle) -> None:
        """Make a loop's timer ready at that time of the world."""
        self._push(max(when, self.now), loop, handle)


class SimTask(asyncio.Task[Any]):
    """A task whose hash does not come from its address, so that sets of tasks have the same order in every run."""

    _made = 0
    _number: int

    def __new__(cls, *args: Any, **kwargs: Any) -> SimTask:
        task = super().__new__(cls)
        SimTask._made += 1
        task._number = SimTask._made
        return task

    def __hash__(self) -> int:
        return self._number

    @classmethod
    def count_anew(cls) -> None:
        """At the start of a run."""
        cls._made = 0


class ProcessLoop(asyncio.AbstractEventLoop):
    """One process's event loop: as much of asyncio as the product uses, driven by the world."""

    def __init__(self, world: World, name: str, *, rate: float = 1.0, started_at: float = 0.0) -> None:
        """`rate`: how fast its clocks go; `started_at`: what its monotonic clock showed when the world began."""
        self.world, self.name = world, name
        self.rate, self._offset = rate, started_at
        self.is_alive = True
        self.is_frozen = False
        self.silent_since: float | None = None
        """Since when it answers nobody, not even a keepalive."""
        self.resets_connections = True
        """Once killed: whether its kernel says so to the other ends, or the whole host is gone."""
        self.noted: object = None
        """What was last written of it into the trace."""
        self.held: deque[asyncio.Handle] = deque()
        self.failures: list[dict[str, Any]] = []
        self._when_killed: list[Callable[[], None]] = []

    # -- what the world does to it -------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Nothing of it runs any more, and what the kernel still does for it is done."""
        self.is_alive = False
        self.silent_since = self.world.now
        endings, self._when_killed = self._when_killed, []
        for ending in endings:
            ending()

    def when_killed(self, ending: Callable[[], None]) -> None:
        """What the machine does as soon as the process is gone."""
        self._when_killed.append(ending)

    def freeze(self) -> None:
        """As SIGSTOP does."""
        self.is_frozen = True
        self.silent_since = self.world.now

    def thaw(self) -> None:
        """As SIGCONT does: what became due meanwhile runs now."""
        self.is_frozen = False
        self.silent_since = None
        while self.held:
            self.world.make_ready(self, self.held.popleft())

    def due(self, handle: asyncio.Handle) -> None:
        """A timer's time has come."""
        if self.is_alive and not handle.cancelled():
            self.world.make_ready(self, handle)

    def finish_generator(self, generator: Any) -> None:
        """An asynchronous generator was dropped half-way: end it, as asyncio does."""
        if self.is_alive:
            self.call_soon(self.create_task, generator.aclose())

    # -- asyncio's -----------------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._offset + self.world.now * self.rate

    def call_soon(  # type: ignore[override]  # the stubs tie the arguments to the callback's
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.world.make_ready(self, handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # as above

    def call_later(  # type: ignore[override]  # as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.push_timer((when - self._offset) / self.rate, self, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled handles are passed over when their time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        return SimTask(coro, loop=self, name=name, context=context)

    def run_in_executor(  # type: ignore[override]  # the base class is loose about it
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        assert executor is not None, "a simulated process has no threads but those it is given"
        return asyncio.wrap_future(executor.submit(func, *args), loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.is_alive:
            self.failures.append(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task from outside, as by the network."""
        return self.create_task(coro)


def new_loop(world: World, name: str, *, rate: float = 1.0, started_at: float = 0.0) -> ProcessLoop:
    """A loop without what the product never asks of one: sockets, signals, subprocesses."""
    return ProcessLoop(world, name, rate=rate, started_at=started_at)  # type: ignore[abstract]
