"""What the tasks of some services use, told to the leader every few seconds.

Only of the services that the leader names, so that nobody else pays for it; the latest only, never acknowledged: a
message that is lost is followed by the next. Cpu is told as the average since the reading before, so a task's first
reading says nothing yet. Decides nothing about the numbers: that is the leader's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_runtime.usage import ContainerUsage

from .ports import ContainerRuntime
from .tasks import Tasks

MIN_PERIOD_S: Final = 1.0
MAX_PERIOD_S: Final = 60.0
MAX_TASKS: Final = 4096
"""In one message. A node with more of them tells of the first ones."""


class Statistics:
    """Runs beside the agent's session; says nothing while nobody asks."""

    def __init__(
        self, runtime: ContainerRuntime, tasks: Tasks, say: Callable[[pb.AgentMessage], None], now: Callable[[], float]
    ) -> None:
        """`now`: a clock that nobody sets."""
        self._runtime, self._tasks, self._say, self._now = runtime, tasks, say, now
        self._services: frozenset[str] = frozenset()
        self._period_s = MIN_PERIOD_S
        self._asked = asyncio.Event()
        self._before: Mapping[str, tuple[float, ContainerUsage]] = {}

    def ask(self, wanted: pb.StatisticsWanted) -> None:
        """The leader wants to know about these services from now on, and of no others."""
        self._services = frozenset(wanted.service_ids)
        self._period_s = min(max(wanted.period_s, MIN_PERIOD_S), MAX_PERIOD_S)
        if self._services:
            self._asked.set()
        else:
            self._asked.clear()
            self._before = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._asked.wait()
            found = await self._look()
            if found:
                self._say(pb.AgentMessage(statistics=pb.TaskStatistics(tasks=found)))
            await asyncio.sleep(self._period_s)

    async def _look(self) -> list[pb.TaskUsage]:
        containers = dict(list(self._tasks.containers_of(self._services).items())[:MAX_TASKS])
        usages = await self._runtime.usage(list(containers.values())) if containers else {}
        now = self._now()
        seen = {task_id: (now, usages[container]) for task_id, container in containers.items() if container in usages}
        before, self._before = self._before, seen
        return [
            pb.TaskUsage(
                task_id=task_id, nano_cpus=_rate(before[task_id], (now, usage)), memory_bytes=usage.memory_bytes
            )
            for task_id, (_, usage) in seen.items()
            if task_id in before
        ]


def _rate(before: tuple[float, ContainerUsage], after: tuple[float, ContainerUsage]) -> int:
    """Nano cpus on average: nanoseconds of cpu time in a second. None after a container was made anew."""
    seconds = after[0] - before[0]
    used_ns = after[1].cpu_ns - before[1].cpu_ns
    return 0 if seconds <= 0 else max(0, round(used_ns / seconds))
