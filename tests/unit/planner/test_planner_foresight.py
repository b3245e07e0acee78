"""What is foreseen is what happens: changes and losses imagined on a copy, then really made in the world, and compared.

The world plans incrementally with a ledger it has kept, and its agents move tasks one state at a time; the imagined
cluster begins anew and its agents jump. Compared is which task (by service and slot) starts, stops and moves, from
which node to which, with which image, and which tasks wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import msgspec
import pytest
from planner_world import CORE, World

from pyswarm_common.model import (
    Availability,
    ContainerSpec,
    NodeState,
    Placement,
    PlacementPreference,
    RebalanceState,
    RebalanceStatus,
    ResourceRequirements,
    Resources,
    ServiceMode,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
)
from pyswarm_manager.api.losses import has_running, loss_of, without_running
from pyswarm_manager.planner.foresight.course import Course, Step, StepKind, outcome_of
from pyswarm_manager.planner.foresight.imagined import Imagined
from pyswarm_manager.store.apply import Applied, Refusal
from pyswarm_manager.store.changes import Change, Update, delete

ZONES = ("a", "b", "c")
LONG_S = 7200.0


class Watched(World):
    """A world that remembers what happens to its tasks."""

    def __init__(self, seed: int) -> None:
        self.course = Course(0.0)
        super().__init__(seed)

    def try_apply(self, *changes: Change) -> Applied | Refusal:
        result = super().try_apply(*changes)
        if isinstance(result, Applied):
            self.course.observe(result.events, self.now)
        return result

    def foresee(self, *changes: Change) -> Imagined:
        """What the changes would do. The world's own tables stay as they are."""
        imagined = Imagined(self.tables.copy(), self.now)
        imagined.apply(changes)
        assert imagined.run()
        return imagined

    def do(self, *changes: Change) -> None:
        self.course = Course(self.now)
        self.apply(*changes)
        self.settle(LONG_S)


def happened(steps: Iterable[Step]) -> list[tuple[str, ...]]:
    return sorted(step.identity() for step in steps)


def expect_as_foreseen(world: Watched, *changes: Change, targets: tuple[str, ...] = ()) -> list[Step]:
    before = world.tables.copy()
    imagined = world.foresee(*changes)
    assert world.tables == before, "imagining changes nothing"
    foreseen = imagined.course.steps(imagined.tables)
    waiting = list(imagined.course.waiting(imagined.tables, targets))
    world.do(*changes)
    really, waits = world.course.steps(world.tables), list(world.course.waiting(world.tables, targets))
    assert happened(foreseen) == happened(really)
    assert sorted(task.name for task in waiting) == sorted(task.name for task in waits)
    assert outcome_of(foreseen, waiting) == outcome_of(really, waits)
    return foreseen


def random_world(seed: int) -> Watched:
    """A cluster with a past: services of several kinds, drained and lost nodes that came back, and what waits."""
    random, world = Random(seed), Watched(seed)
    for number in range(random.randint(3, 9)):
        world.node(f"n{number}", cpus=random.randint(1, 4), zone=random.choice(ZONES))
    for number in range(random.randint(1, 6)):
        _random_service(world, random, f"s{number}")
    world.settle(LONG_S)
    for _ in range(random.randint(0, 3)):
        name = random.choice(list(world.tables.nodes))
        world.node_state(name, NodeState.DOWN)
        world.settle(LONG_S)
        world.node_state(name, NodeState.READY)
        world.settle(LONG_S)
    return world


def _random_service(world: World, random: Random, name: str) -> None:
    is_global = random.random() < 0.2
    reserved = Resources(nano_cpus=random.choice((0, 0, CORE // 4, CORE // 2)))
    preferences = (PlacementPreference("node.labels.zone"),) if random.random() < 0.4 else ()
    constraints = (f"node.labels.zone!={random.choice(ZONES)}",) if random.random() < 0.3 else ()
    order = random.choice((UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST))
    world.service(
        name,
        None if is_global else random.randint(1, 8),
        mode=ServiceMode.GLOBAL if is_global else ServiceMode.REPLICATED,
        priority=random.choice((0, 0, 0, 5)),
        update=UpdateConfig(parallelism=random.randint(0, 3), delay_s=random.choice((0.0, 10.0)), order=order),
        task=TaskSpec(
            container=ContainerSpec(image="img:1"),
            resources=ResourceRequirements(reservations=reserved),
            placement=Placement(
                preferences=preferences, constraints=constraints, max_replicas_per_node=random.choice((0, 0, 2))
            ),
        ),
    )


@pytest.mark.parametrize("seed", range(60))
def test_what_a_loss_does_is_foreseen(seed: int) -> None:
    world, random = random_world(seed), Random(seed)
    nodes = random.sample(list(world.tables.nodes.values()), random.randint(1, 2))
    lost = {node.id: None for node in nodes}
    loss = loss_of(nodes, world.now)
    imagined = world.foresee(*loss)
    out = without_running(world.tables, lost)
    back = [service.id for service in out if has_running(imagined.tables, service)]
    expect_as_foreseen(world, *loss)
    assert back == [service.id for service in out if has_running(world.tables, service)]


@pytest.mark.parametrize("seed", range(60))
def test_what_a_change_does_is_foreseen(seed: int) -> None:
    world, random = random_world(seed), Random(1000 + seed)
    service = random.choice(list(world.tables.services.values()))
    spec, kind = service.spec, random.choice(("scale", "image", "rm", "drain", "rebalance"))
    match kind:
        case "scale" if spec.mode is ServiceMode.REPLICATED:
            spec = msgspec.structs.replace(spec, replicas=random.randint(0, 12))
            change: Change = Update(msgspec.structs.replace(service, spec=spec))
        case "rm":
            change = delete(service)
        case "drain":
            node = random.choice(list(world.tables.nodes.values()))
            drained = msgspec.structs.replace(node.spec, availability=Availability.DRAIN)
            change = Update(msgspec.structs.replace(node, spec=drained))
        case "rebalance" if spec.mode is ServiceMode.REPLICATED:
            asked = RebalanceStatus(state=RebalanceState.RUNNING)
            change = Update(msgspec.structs.replace(service, rebalance_status=asked))
        case _:
            task = msgspec.structs.replace(spec.task, container=ContainerSpec(image="img:2"))
            change = Update(msgspec.structs.replace(service, spec=msgspec.structs.replace(spec, task=task)))
    expect_as_foreseen(world, change, targets=(service.id,))


def test_the_order_and_the_time_of_a_rolling_update_are_told() -> None:
    world = Watched(0)
    for number in range(3):
        world.node(f"n{number}")
    world.service("web", 3, update=UpdateConfig(parallelism=1, delay_s=10.0))
    world.settle(LONG_S)
    service = world.tables.services["web"]
    task = msgspec.structs.replace(service.spec.task, container=ContainerSpec(image="img:2"))
    spec = msgspec.structs.replace(service.spec, task=task)
    steps = expect_as_foreseen(world, Update(msgspec.structs.replace(service, spec=spec)))
    assert [step.kind for step in steps] == [StepKind.REPLACE] * 3
    assert [step.at_s for step in steps] == pytest.approx([0.0, 10.0, 20.0], abs=0.1)


def test_what_does_not_fit_waits_and_nothing_is_said_to_stop() -> None:
    world = Watched(0)
    world.node("n0", cpus=1)
    world.node("n1", cpus=1)
    reserved = ResourceRequirements(reservations=Resources(nano_cpus=CORE))
    world.service("web", 2, task=TaskSpec(container=ContainerSpec(image="img:1"), resources=reserved))
    world.settle(LONG_S)
    imagined = world.foresee(*loss_of([world.tables.nodes["n0"]], world.now))
    assert imagined.course.steps(imagined.tables) == []
    (waiting,) = imagined.course.waiting(imagined.tables, ())
    assert "insufficient cpu" in waiting.status.message + waiting.status.err


def test_impatience_cuts_it_off() -> None:
    world = Watched(0)
    world.node("n0")
    world.service("web", 2)
    imagined = Imagined(world.tables.copy(), world.now)
    assert not imagined.run(lambda: True)
    assert imagined.course.steps(imagined.tables) == []
