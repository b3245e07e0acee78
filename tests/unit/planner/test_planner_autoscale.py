"""Autoscaling with the real planner: numbers follow the load, survive leaders, and stay where they are in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from job_world import new_leader
from msgspec.structs import replace
from planner_world import CORE, World

from pyswarm_common.model import (
    AutoscaleSpec,
    AutoscaleStatus,
    NodeState,
    ResourceRequirements,
    Resources,
    TaskSpec,
    UpdateConfig,
)
from pyswarm_manager.autoscale.autoscaler import KEPT_DECISIONS, PERIOD_S, Autoscaler
from pyswarm_manager.autoscale.rule import Reading
from pyswarm_manager.store.apply import Refusal
from pyswarm_manager.store.changes import Change, Event
from pyswarm_manager.store.tables import Tables

SCALE = AutoscaleSpec(min_replicas=1, max_replicas=6, cpu_percent=50, scale_down_window_s=60.0, scale_up_window_s=10.0)


class Scaled:
    """A world with one autoscaled service, and a load that its running tasks share."""

    def __init__(self, scale: AutoscaleSpec = SCALE, replicas: int | None = 2) -> None:
        self.world = World()
        for number in range(3):
            self.world.node(f"n{number + 1}", cpus=16)
        task = TaskSpec(resources=ResourceRequirements(limits=Resources(nano_cpus=CORE)))
        self.world.service("web", replicas, task=task, autoscale=scale)
        self.load = 1.0
        self.silent: frozenset[str] = frozenset()
        """Nodes that report nothing."""
        self.lead()

    # ---- what the autoscaler needs of a store

    @property
    def view(self) -> Tables:
        return self.world.tables

    async def propose(self, changes: Iterable[Change]) -> int:
        result = self.world.try_apply(*changes)
        if isinstance(result, Refusal):
            raise result.error
        self.scaler.observe(self.world.tables.index, result.events)
        return self.world.tables.index

    def subscribe(self, listener: Callable[[int, tuple[Event, ...]], None], /) -> Callable[[], None]:
        raise AssertionError("the test tells of commits itself")

    # ---- what happens

    def lead(self) -> None:
        """A new leader, who knows what is in the store."""
        self.scaler = Autoscaler(self, lambda: self.world.now, lambda: self.world.now)
        self.scaler.begin()

    async def pass_time(self, seconds: float) -> None:
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.settle(PERIOD_S)
            self.report()
            await self.scaler.look()
            self.world.plan_all()

    def report(self) -> None:
        running = self.world.running("web")
        share = Reading(round(CORE * self.load / max(1, len(running))), 0)
        for task in running:
            if task.node_id not in self.silent:
                self.scaler.report(task.node_id, [(task.id, share)])

    @property
    def wanted(self) -> int:
        return len(self.world.tasks("web"))

    @property
    def status(self) -> AutoscaleStatus:
        found = self.world.tables.services["web"].autoscale_status
        assert found is not None
        return found


async def test_the_number_follows_the_load_and_the_users_own_stays() -> None:
    scaled = Scaled()
    await scaled.pass_time(30)
    assert scaled.wanted == 2
    scaled.load = 2.4
    await scaled.pass_time(60)
    assert scaled.wanted == 5
    assert scaled.world.tables.services["web"].spec.replicas == 2
    scaled.load = 0.4
    await scaled.pass_time(120)
    assert scaled.wanted == 1
    reasons = [decision.reason for decision in scaled.status.decisions]
    assert reasons[0] == "cpu 120 % of 50 %"
    assert [decision.to_replicas for decision in scaled.status.decisions][-1] == 1


async def test_a_step_of_load_is_followed_without_swinging_back() -> None:
    scaled = Scaled()
    await scaled.pass_time(30)
    scaled.load = 2.0
    numbers = []
    for _ in range(40):
        await scaled.pass_time(PERIOD_S)
        numbers.append(scaled.wanted)
    assert numbers == sorted(numbers)
    assert numbers[-1] == 4


async def test_a_new_leader_keeps_the_number_and_changes_nothing_before_it_knows() -> None:
    scaled = Scaled()
    scaled.load = 2.4
    await scaled.pass_time(90)
    assert scaled.wanted == 5
    scaled.load = 0.1
    scaled.lead()
    await scaled.pass_time(55)
    assert scaled.wanted == 5
    await scaled.pass_time(60)
    assert scaled.wanted == 1


async def test_without_readings_nothing_changes() -> None:
    scaled = Scaled()
    scaled.load = 2.4
    await scaled.pass_time(90)
    scaled.silent = frozenset(scaled.world.tables.nodes)
    scaled.load = 0.1
    await scaled.pass_time(300)
    assert scaled.wanted == 5


async def test_a_node_that_says_nothing_is_taken_as_busy() -> None:
    scaled = Scaled(replicas=3)
    scaled.load = 1.5
    await scaled.pass_time(60)
    assert scaled.wanted == 3
    scaled.silent = frozenset({"n1"})
    scaled.load = 1.2
    await scaled.pass_time(300)
    assert scaled.wanted == 3


async def test_what_somebody_elses_node_says_of_a_task_is_not_believed() -> None:
    scaled = Scaled()
    await scaled.pass_time(30)
    before = scaled.wanted
    scaled.silent = frozenset(scaled.world.tables.nodes)
    for _ in range(20):
        await scaled.pass_time(PERIOD_S)
        for task in scaled.world.running("web"):
            other = next(name for name in scaled.world.tables.nodes if name != task.node_id)
            scaled.scaler.report(other, [(task.id, Reading(10 * CORE, 0))])
    assert scaled.wanted == before


async def test_without_autoscaling_the_users_number_is_back_and_what_was_decided_forgotten() -> None:
    scaled = Scaled()
    scaled.load = 2.4
    await scaled.pass_time(90)
    scaled.world.respec("web", autoscale=None)
    scaled.scaler.begin()
    await scaled.pass_time(10)
    assert scaled.wanted == 2
    assert scaled.world.tables.services["web"].autoscale_status is None


async def test_decisions_are_bounded() -> None:
    quick = replace(SCALE, scale_down_window_s=0.0, scale_up_window_s=0.0)
    scaled = Scaled(quick)
    for _ in range(2 * KEPT_DECISIONS):
        scaled.load = 0.1 if scaled.load > 1 else 2.4
        await scaled.pass_time(30)
    assert len(scaled.status.decisions) == KEPT_DECISIONS


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
async def test_whoever_leads_numbers_stay_in_bounds_and_only_decisions_change_them(seed: int) -> None:
    """Leaders die between and inside commits, nodes fall silent and die: the number is always the one last decided."""
    rng = Random(seed)
    scaled = Scaled()
    await scaled.pass_time(20)
    for _ in range(25):
        step = rng.random()
        if step < 0.3:
            new_leader(scaled.world, rng)
            scaled.lead()
            scaled.world.now += rng.uniform(-3.0, 3.0)
        elif step < 0.5:
            scaled.load = rng.uniform(0.0, 5.0)
        elif step < 0.6:
            scaled.silent = frozenset(rng.sample(sorted(scaled.world.tables.nodes), rng.randint(0, 3)))
        elif step < 0.7:
            name = rng.choice(["n1", "n2"])
            is_down = scaled.world.tables.nodes[name].status.state is NodeState.DOWN
            scaled.world.node_state(name, NodeState.READY if is_down else NodeState.DOWN)
        before = scaled.status
        await scaled.pass_time(PERIOD_S)
        after = scaled.status
        assert SCALE.min_replicas <= after.replicas <= SCALE.max_replicas
        assert scaled.wanted == after.replicas
        if after.replicas != before.replicas:
            assert after.decisions[-1].from_replicas == before.replicas
            assert after.decisions[-1].to_replicas == after.replicas
        assert scaled.world.plan_again().changes == ()


async def test_a_successor_that_waits_beside_what_serves_is_not_one_task_more() -> None:
    """On nodes that are all drained each task has one, for which there is no room."""
    scaled = Scaled(replicas=1)
    scaled.world.respec("web", update=UpdateConfig(parallelism=1))
    await scaled.pass_time(20)
    for name in ("n1", "n2", "n3"):
        scaled.world.drain(name)
    scaled.load = 0.9
    await scaled.pass_time(60)
    assert len(scaled.world.running("web")) == 1
    assert scaled.status.replicas == 2
