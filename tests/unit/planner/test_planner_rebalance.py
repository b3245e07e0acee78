"""Rebalance: the fewest moves to an even spread, each started before the old task stops, through a leader's death."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_invariants import check_invariants
from planner_world import GIB, World

from pyswarm_common.model import (
    Availability,
    NodeState,
    Placement,
    PlacementPreference,
    PlacementStrategy,
    RebalanceState,
    RebalanceStatus,
    ResourceRequirements,
    Resources,
    Taint,
    TaskSpec,
    TaskState,
    UpdateConfig,
)
from pyswarm_manager.planner.dirty import Dirty, everything
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.orchestrate.rebalance import COOLDOWN_S, planned_moves
from pyswarm_manager.store.changes import Update

PARALLEL = UpdateConfig(parallelism=2)


def spread(world: World, service: str = "s") -> list[int]:
    placed = Counter(task.node_id for task in world.running(service))
    return sorted(placed[node] for node in world.tables.nodes)


def ask(world: World, service: str = "s") -> None:
    """What `service rebalance` does."""
    asked = RebalanceStatus(state=RebalanceState.RUNNING)
    world.apply(Update(msgspec.structs.replace(world.tables.services[service], rebalance_status=asked)))


def moved(world: World) -> int:
    return sum(1 for task in world.tables.tasks.values() if task.cause)


def crowded(replicas: int = 6, **spec: Any) -> World:
    """All on one node, and two empty ones beside it."""
    world = World()
    world.node("n1", zone="a")
    world.service("s", replicas, **spec)
    world.settle()
    world.node("n2", zone="b")
    world.node("n3", zone="b")
    world.settle()
    return world


def test_nothing_moves_unless_it_is_allowed_or_asked_for() -> None:
    world = crowded()
    world.settle(1000)
    assert spread(world) == [0, 0, 6]
    ask(world)
    world.settle(100)
    assert spread(world) == [2, 2, 2]
    assert moved(world) == 4
    status = world.tables.services["s"].rebalance_status
    assert status is not None
    assert (status.state, status.moves, status.message) == (RebalanceState.COMPLETED, 4, "rebalance completed")


def test_by_itself_when_a_node_joins_and_then_not_too_often() -> None:
    world = crowded(rebalance=True)
    world.settle(20)
    assert spread(world) == [2, 2, 2]
    world.node("n4")
    world.settle(10)
    assert spread(world) == [0, 2, 2, 2], "it has just moved"
    world.settle(COOLDOWN_S)
    assert spread(world) == [1, 1, 2, 2]


def test_a_node_that_returns_gets_its_share_back() -> None:
    world = crowded(replicas=6, rebalance=True)
    world.settle(100)
    world.node_state("n3", NodeState.DOWN)
    world.settle(100)
    world.node_state("n3", NodeState.READY)
    world.settle(200)
    assert spread(world) == [2, 2, 2]


def test_the_old_task_serves_until_the_new_one_runs_and_few_move_at_a_time() -> None:
    world = crowded(update=PARALLEL)
    ask(world)
    world.now += 1
    for _ in range(200):
        world.plan_all()
        running = world.running("s")
        assert len({task.slot for task in running}) == 6, "every slot is served all the time"
        assert len(world.tasks("s")) <= 8, "two on their way at most"
        if not world.agents_step():
            break
    assert spread(world) == [2, 2, 2]


def test_a_leader_that_knows_nothing_goes_on() -> None:
    world = crowded()
    ask(world)
    for step in range(200):
        changes = world.plan(commit=False).changes
        world.apply(*changes[: step % (len(changes) + 1)])
        world.dirty, world.wakes, world.ledger = everything(), {}, Ledger.of(world.tables)
        world.agents_step()
    world.settle(100)
    assert spread(world) == [2, 2, 2]
    check_invariants(world)


def test_preferences_are_balanced_first() -> None:
    preference = Placement(preferences=(PlacementPreference("node.labels.zone"),))
    world = crowded(8, task=TaskSpec(placement=preference))
    ask(world)
    world.settle(100)
    placed = Counter(task.node_id for task in world.running("s"))
    assert placed == {"n1": 4, "n2": 2, "n3": 2}
    assert moved(world) == 4


def test_full_paused_and_tainted_nodes_get_nothing() -> None:
    sized = TaskSpec(resources=ResourceRequirements(reservations=Resources(memory_bytes=GIB)))
    world = crowded(6, task=sized)
    world.node("n4", memory=GIB)
    world.drain("n2", Availability.PAUSE)
    world.respec_node("n3", taints=(Taint(key="x"),))
    ask(world)
    world.settle(100)
    assert Counter(task.node_id for task in world.running("s")) == {"n1": 5, "n4": 1}


def test_a_packed_service_is_never_spread() -> None:
    world = crowded(task=TaskSpec(placement=Placement(strategy=PlacementStrategy.BINPACK)), rebalance=True)
    world.settle(100)
    assert spread(world) == [0, 0, 6]


def test_it_waits_for_an_update_and_for_tasks_on_their_way() -> None:
    world = crowded()
    world.image("s", "img:2")
    world.plan_all()
    ask(world)
    world.settle(100)
    assert all(task.spec.container.image == "img:2" for task in world.running("s"))
    assert max(spread(world)) - min(spread(world)) <= 1


def test_a_successor_that_fails_leaves_the_old_task_where_it_is() -> None:
    world = crowded(2)
    ask(world)
    world.plan_all()
    [successor] = [task for task in world.tasks("s") if task.cause]
    world.report(successor, TaskState.REJECTED)
    world.plan_all()
    assert len(world.running("s")) == 2
    world.settle(100)
    assert spread(world) == [0, 1, 1]


@settings(deadline=None, max_examples=80)
@given(
    before=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    zones=st.lists(st.sampled_from("ab"), min_size=5, max_size=5),
    prefers=st.booleans(),
)
def test_within_one_of_even_with_no_move_too_many(before: list[int], zones: list[str], prefers: bool) -> None:
    world = World()
    for number, count in enumerate(before):
        world.node(f"n{number}", zone=zones[number])
        task = TaskSpec(placement=Placement(constraints=(f"node.id==n{number}",)))
        world.service(f"s{number}", count, task=task)
    world.settle()
    tasks = [task for name in world.tables.services for task in world.running(name)]
    preferences = (PlacementPreference("node.labels.zone"),) if prefers else ()
    world.service("all", 0, task=TaskSpec(placement=Placement(preferences=preferences)))
    # The tasks of all services taken as those of one.
    service = world.tables.services["all"]
    slots = {number: (task,) for number, task in enumerate(tasks)}
    draft = Draft(world.tables, world.ledger, world.now, world.rng.random, world.new_id)
    moves = planned_moves(draft, service, slots)
    after = Counter({f"n{number}": count for number, count in enumerate(before)})
    for move in moves:
        after[move.task.node_id] -= 1
        after[move.node_id] += 1
    assert len({move.task.id for move in moves}) == len(moves)
    check_even(after, before, zones, prefers, len(moves))
    assert not Dirty()


def check_even(after: Counter[str], before: list[int], zones: list[str], prefers: bool, moves: int) -> None:
    nodes = range(len(before))
    groups = [[n for n in nodes if zones[n] == zone] for zone in "ab"] if prefers else [list(nodes)]
    groups = [group for group in groups if group]
    totals = [sum(after[f"n{n}"] for n in group) for group in groups]
    assert max(totals) - min(totals) <= 1
    for group in groups:
        counts = [after[f"n{n}"] for n in group]
        assert max(counts) - min(counts) <= 1
    # No more than what every node has above its final count: that much has to leave in any case.
    assert moves == sum(max(0, before[n] - after[f"n{n}"]) for n in nodes)
    if not prefers:
        ceiling, extra = divmod(sum(before), len(before))
        highest = sorted(before, reverse=True)
        bound = sum(max(0, count - ceiling - (rank < extra)) for rank, count in enumerate(highest))
        assert moves == bound
