"""Disks: a thread that takes virtual time, and a Raft log that holds what was synced.

A process that ends while writes are under way never hears of them. How many of them reached the disk is a matter of
chance, and whether the last of those was synced; but that is settled when the process ends. Nothing of it comes later,
over what its successor wrote: a process is not gone, and its locks are not free, before its system calls are done.
What a transaction wrote is there whole or not at all, which is what SQLite promises and the real storage builds on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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
    is_cut_short: bool = False
    """What is written at this moment is not synced: the process that wrote it is gone."""


@dataclass(slots=True)
class _Work:
    """What a process asked of its disk, and how it hears that it is done."""

    do: Callable[[], Any]
    future: Future[Any]


class DiskThread(Executor):
    """One thread in front of one disk: one piece of work at a time, in order. Belongs to a process."""

    def __init__(self, world: World, loop: ProcessLoop, weather: DiskWeather) -> None:
        self._world, self._loop, self._weather = world, loop, weather
        self._free_at = 0.0
        self._under_way: deque[_Work] = deque()
        loop.when_killed(self._cut_short)

    @property
    def is_busy(self) -> bool:
        return bool(self._under_way)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Done, and told of, after the time that the disk takes."""
        work = _Work(partial(fn, *args, **kwargs), Future())
        if self._loop.is_alive:
            self._free_at = max(self._free_at, self._world.now) + self._duration()
            self._under_way.append(work)
            self._world.at(self._free_at, self._finish_first)
        return work.future

    def _duration(self) -> float:
        weather, rng = self._weather, self._world.rng
        if self._world.chance(weather.slow):
            return rng.uniform(0, weather.slow_s)
        return weather.sync_s * rng.uniform(0.5, 1.5)

    def _finish_first(self) -> None:
        if not self._under_way:
            return  # the process was killed
        work = self._under_way.popleft()
        try:
            result = work.do()
        except Exception as error:
            work.future.set_exception(error)
        else:
            work.future.set_result(result)

    def _cut_short(self) -> None:
        """The process was killed: some of what was under way is done, in order, and nobody is told."""
        reached = list(self._under_way)[: self._world.rng.randint(0, len(self._under_way))]
        self._under_way.clear()
        for work in reached:
            self._weather.is_cut_short = work is reached[-1] and self._world.chance(0.5)
            with suppress(Exception):  # a full disk: nobody is there to hear it
                work.do()
        self._weather.is_cut_short = False

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What was submitted is done all the same."""
