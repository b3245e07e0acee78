"""Disks: a thread that takes virtual time, and a Raft log that holds what was synced.

A process that ends while a write is under way never hears of it; whether it reached the disk is a matter of chance.
What a transaction wrote is there whole or not at all, which is what SQLite promises and the real storage builds on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from pyswarm_simulator.world import ProcessLoop, World


@dataclass(slots=True)
class DiskWeather:
    """How one host's disk fares now."""

    sync_s: float = 0.001
    slow: float = 0.0
    """How likely a write takes up to `slow_s`."""
    slow_s: float = 0.1
    is_full: bool = False


class DiskThread(Executor):
    """One thread in front of one disk: one piece of work at a time, in order. Belongs to a process."""

    def __init__(self, world: World, loop: ProcessLoop, weather: DiskWeather) -> None:
        self._world, self._loop, self._weather = world, loop, weather
        self._free_at = 0.0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Done, and told of, after the time that the disk takes."""
        future: Future[Any] = Future()
        if not self._loop.is_alive:
            return future
        self._free_at = max(self._free_at, self._world.now) + self._duration()
        self._world.at(self._free_at, lambda: self._run(future, fn, args, kwargs))
        return future

    def _duration(self) -> float:
        weather, rng = self._weather, self._world.rng
        if self._world.chance(weather.slow):
            return rng.uniform(0, weather.slow_s)
        return weather.sync_s * rng.uniform(0.5, 1.5)

    def _run(self, future: Future[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        if not self._loop.is_alive:
            if self._world.chance(0.5):
                _ignore_refusal(fn, args, kwargs)  # it had reached the disk, and nobody was told
            return
        try:
            result = fn(*args, **kwargs)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What was submitted is done all the same."""


def _ignore_refusal(fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        fn(*args, **kwargs)
    except Exception:  # a full disk: nobody is there to hear it
        return
