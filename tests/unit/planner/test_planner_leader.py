"""The leader's loop: plans after commits, wakes in time, plans again after refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import msgspec
import pytest
from planner_world import World

from pyswarm_common.errors import OutOfSequence, Unavailable, Unknown
from pyswarm_common.model import Cluster, Node, NodeState, NodeStatus, Service, ServiceSpec, TaskState, TaskStatus
from pyswarm_manager.leader import run_planner
from pyswarm_manager.store.changes import Create, SetTaskStatus, Update
from pyswarm_manager.store.store import Store


@dataclass
class Committed:
    index: int
    result: object


class FakeLog:
    """Commits at once, or raises what it is told to first."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = 0
        self.failures: list[Exception] = []
        self.before: Callable[[], object] | None = None

    async def propose(self, data: bytes) -> Committed:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        before, self.before = self.before, None
        if before is not None:
            await before()  # type: ignore[misc]
        self.index += 1
        return Committed(self.index, self.store.apply(self.index, 1, data))


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.wrong_by = 0.0
        self.store = Store(clock=lambda: self.now)
        self.log = FakeLog(self.store)
        self.store.connect(self.log)
        self.world_ids = World()

    async def prepare(self) -> None:
        await self.store.propose(
            [
                Create(Cluster(id="c")),
                Create(Node(id="n1", status=NodeStatus(state=NodeState.READY))),
                Create(Service(id="web", spec=ServiceSpec(name="web", replicas=2))),
            ]
        )

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Task[None]]:
        loop = run_planner(
            self.store,
            self.world_ids.new_id,
            Random(0).random,
            clock=lambda: self.now + self.wrong_by,
            monotonic=lambda: self.now,
        )
        running = asyncio.ensure_future(loop)
        try:
            yield running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for commits until it holds."""
        committed = asyncio.Event()
        stop = self.store.subscribe(lambda index, events: committed.set())
        try:
            async with asyncio.timeout(10):
                while not holds():
                    await committed.wait()
                    committed.clear()
        finally:
            stop()

    def states(self) -> list[TaskState]:
        return [task.status.state for task in self.store.view.tasks.values()]

    async def scale(self, replicas: int) -> None:
        web = self.store.view.services["web"]
        spec = msgspec.structs.replace(web.spec, replicas=replicas)
        await self.store.propose([Update(msgspec.structs.replace(web, spec=spec))])


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.prepare()
    return bench


async def test_a_new_leader_does_what_was_left_undone_and_then_follows_commits(bench: Bench) -> None:
    async with bench.leading():
        await bench.until(lambda: bench.states() == [TaskState.ASSIGNED] * 2)
        await bench.scale(5)
        await bench.until(lambda: bench.states() == [TaskState.ASSIGNED] * 5)


async def test_refusals_and_overload_are_planned_again(bench: Bench) -> None:
    bench.log.failures = [OutOfSequence("moved"), Unavailable("no quorum"), OutOfSequence("moved")]
    async with bench.leading():
        await bench.until(lambda: bench.states() == [TaskState.ASSIGNED] * 2)


async def test_a_change_that_comes_between_plan_and_commit_is_seen(bench: Bench) -> None:
    bench.log.before = lambda: bench.scale(4)
    async with bench.leading():
        await bench.until(lambda: bench.states() == [TaskState.ASSIGNED] * 4)


async def test_lost_leadership_ends_the_loop(bench: Bench) -> None:
    bench.log.failures = [Unknown("leadership was lost")]
    async with bench.leading() as running:
        with pytest.raises(Unknown):
            await asyncio.wait_for(running, 10)
    assert bench.states() == []


async def test_what_waits_for_a_time_goes_on_then(bench: Bench) -> None:
    async with bench.leading():
        await bench.until(lambda: len(bench.states()) == 2)
        first = next(iter(bench.store.view.tasks))
        for state in (TaskState.RUNNING, TaskState.FAILED):
            await bench.store.propose([SetTaskStatus(first, TaskStatus(state=state))])
        await bench.until(lambda: len(bench.states()) == 3)
        replacement = list(bench.store.view.tasks.values())[-1]
        assert (replacement.desired_state, replacement.start_at) == (TaskState.READY, 105.0)
        bench.now = 105.0
        await bench.scale(2)  # any commit: the loop looks at its clock
        await bench.until(lambda: bench.store.view.tasks[replacement.id].desired_state is TaskState.RUNNING)


async def fail_one(bench: Bench) -> None:
    first = next(iter(bench.store.view.tasks))
    for state in (TaskState.RUNNING, TaskState.FAILED):
        await bench.store.propose([SetTaskStatus(first, TaskStatus(state=state))])


@pytest.mark.parametrize("first_wrong_by", [3600.0, -50.0])
async def test_a_leader_whose_clock_is_wrong_makes_nobody_wait_for_it(bench: Bench, first_wrong_by: float) -> None:
    bench.wrong_by = first_wrong_by
    async with bench.leading():
        await bench.until(lambda: len(bench.states()) == 2)
        await fail_one(bench)
        await bench.until(lambda: len(bench.states()) == 3)
    replacement = list(bench.store.view.tasks.values())[-1]
    assert replacement.start_at == 105.0 + first_wrong_by
    bench.wrong_by = 0.0
    async with bench.leading():
        await bench.until(lambda: bench.store.view.tasks[replacement.id].desired_state is TaskState.RUNNING)


async def test_a_calendar_that_is_set_back_keeps_nobody_waiting(bench: Bench) -> None:
    async with bench.leading():
        await bench.until(lambda: len(bench.states()) == 2)
        await fail_one(bench)
        await bench.until(lambda: len(bench.states()) == 3)
        replacement = list(bench.store.view.tasks.values())[-1]
        bench.wrong_by = -3600.0
        bench.now = 105.0
        await bench.scale(2)  # any commit: the loop looks at its clock
        await bench.until(lambda: bench.store.view.tasks[replacement.id].desired_state is TaskState.RUNNING)


async def test_leaving_stops_listening(bench: Bench) -> None:
    async with bench.leading():
        await bench.until(lambda: len(bench.states()) == 2)
    await bench.scale(3)
    await asyncio.sleep(0)
    assert len(bench.states()) == 2
