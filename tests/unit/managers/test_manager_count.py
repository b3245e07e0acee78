"""How many managers there are to be, and who: tables of single decisions, and clusters that live, die and come back."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manager_world import GRACE_S, TIMING, World, machine, view_of
from msgspec.structs import replace

from pyswarm_common.model import Availability, Node, NodeRole, NodeState, NodeStatus
from pyswarm_manager.managers.count import Change, Demote, History, Promote, next_manager_change, zone_of
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.raft.ports import MemberStatus

M = NodeRole.MANAGER
LATER = 10_000.0


def voters(*raft_ids: int, silent: tuple[int, ...] = (), leader: int = 1) -> dict[int, MemberStatus]:
    return {i: MemberStatus("", MemberRole.VOTER, i == leader, i not in silent, int(i not in silent)) for i in raft_ids}


def decide(
    nodes: list[Node], members: dict[int, MemberStatus], wanted: int = 3, *, silent_for: float = LATER
) -> Change | None:
    """What is decided about managers that have been as they are for long."""
    view = view_of(nodes, wanted)
    begin = History(quiet_since=0.0).observed(view, members, 0.0)
    silent = dict.fromkeys(begin.silent_since, LATER - silent_for)
    history = replace_history(begin, silent).observed(view, members, LATER)
    return next_manager_change(view, members, history, LATER, TIMING)


def replace_history(history: History, silent: dict[int, float]) -> History:
    return History(history.quiet_since, history.managers, silent, history.joining_since, history.failed_until)


def node_of(change: Change | None, kind: type) -> str:
    assert isinstance(change, kind), change
    return change.node_id


def test_nothing_happens_by_itself_where_managers_are_kept_by_hand() -> None:
    assert decide([machine(1, role=M), machine(2)], voters(1), wanted=0) is None


def test_a_worker_fills_up() -> None:
    assert node_of(decide([machine(1, role=M), machine(2), machine(3)], voters(1)), Promote) == "n2"


@pytest.mark.parametrize(
    "unfit",
    [
        machine(2, status=NodeStatus(state=NodeState.DOWN)),
        machine(2, status=NodeStatus(state=NodeState.SUSPECT)),
        machine(2, status=NodeStatus(state=NodeState.UNKNOWN)),
        replace(machine(2), spec=replace(machine(2).spec, availability=Availability.DRAIN)),
    ],
)
def test_who_is_not_promoted(unfit: Node) -> None:
    assert node_of(decide([machine(1, role=M), unfit, machine(3)], voters(1)), Promote) == "n3"
    assert decide([machine(1, role=M), unfit], voters(1)) is None


def test_the_emptiest_zone_then_one_that_takes_tasks_then_the_oldest() -> None:
    managers = [machine(1, "a", M), machine(2, "b", M)]
    assert node_of(decide([*managers, machine(3, "a"), machine(4, "c")], voters(1, 2)), Promote) == "n4"
    paused = replace(machine(3, "c"), spec=replace(machine(3, "c").spec, availability=Availability.PAUSE))
    assert node_of(decide([*managers, paused, machine(4, "c")], voters(1, 2)), Promote) == "n4"
    young = machine(3, "c", status=NodeStatus(state=NodeState.READY, changed_at=99.0))
    assert node_of(decide([*managers, young, machine(4, "c")], voters(1, 2)), Promote) == "n4"


def test_a_dead_manager_is_replaced_after_its_grace_and_goes_when_the_new_one_votes() -> None:
    three = [machine(i, role=M) for i in (1, 2, 3)]
    members = voters(1, 2, 3, silent=(3,))
    assert decide([*three, machine(4)], members, silent_for=GRACE_S - 1) is None
    assert node_of(decide([*three, machine(4)], members, silent_for=GRACE_S), Promote) == "n4"
    four = [*three, machine(4, role=M)]
    assert node_of(decide(four, voters(1, 2, 3, 4, silent=(3,))), Demote) == "n3"


def test_a_dead_manager_stays_where_nobody_can_replace_it() -> None:
    assert decide([machine(i, role=M) for i in (1, 2, 3)], voters(1, 2, 3, silent=(3,))) is None


def test_one_thing_at_a_time() -> None:
    joining = replace(machine(2, role=M), manager_status=None)
    assert decide([machine(1, role=M), joining, machine(3)], voters(1)) is not None  # given up, it took too long
    view = view_of([machine(1, role=M), joining, machine(3)], 3)
    history = History(quiet_since=0.0).observed(view, voters(1), LATER)
    soon = LATER + TIMING.settle_s
    assert next_manager_change(view, voters(1), history.observed(view, voters(1), soon), soon) is None
    leaving = replace(machine(2, role=M), spec=machine(2).spec)
    assert decide([machine(1, role=M), leaving, machine(3), machine(4)], voters(1, 2)) is None


def test_a_demotion_that_would_cost_the_majority_waits_for_one_more_manager() -> None:
    leaving = replace(machine(2, role=M), spec=machine(2).spec)
    nodes = [machine(1, role=M), leaving, machine(3, role=M), machine(4)]
    assert node_of(decide(nodes, voters(1, 2, 3, silent=(3,))), Promote) == "n4"


def test_a_node_that_does_not_become_a_manager_is_given_up() -> None:
    joining = replace(machine(2, role=M), manager_status=None)
    assert node_of(decide([machine(1, role=M), joining], voters(1)), Demote) == "n2"
    view = view_of([machine(1, role=M), machine(2), machine(3)], 3)
    history = History(quiet_since=0.0).observed(view, voters(1), 0.0).given_up("n2", LATER, TIMING)
    found = next_manager_change(view, voters(1), history, LATER)
    assert node_of(found, Promote) == "n3"


def test_too_many_managers_are_reduced_from_the_crowded_zone_and_never_by_the_leader() -> None:
    nodes = [machine(1, "a", M), machine(2, "a", M), machine(3, "b", M), machine(4, "c", M)]
    assert node_of(decide(nodes, voters(1, 2, 3, 4)), Demote) == "n2"
    assert node_of(decide(nodes, voters(1, 2, 3, 4, leader=2)), Demote) == "n1"
    assert node_of(decide(nodes[:2], voters(1, 2), wanted=1), Demote) == "n2"
    assert decide(nodes[:1], voters(1), wanted=1) is None


def test_nothing_is_taken_from_a_majority_that_hangs_by_a_thread() -> None:
    nodes = [machine(i, role=M) for i in (1, 2, 3)]
    members = voters(1, 2, 3, silent=(3,))
    assert node_of(decide(nodes, members, wanted=1, silent_for=1.0), Demote) == "n3"  # the silent one can be spared
    five = [machine(i, role=M) for i in (1, 2, 3, 4, 5)]
    found = decide(five, voters(1, 2, 3, 4, 5, silent=(4, 5)), wanted=3, silent_for=1.0)
    assert node_of(found, Demote) in ("n4", "n5")


def test_a_crowded_zone_gives_one_to_an_empty_one_in_quiet_times() -> None:
    crowded = [machine(1, "a", M), machine(2, "a", M), machine(3, "b", M)]
    assert node_of(decide([*crowded, machine(4, "c")], voters(1, 2, 3)), Promote) == "n4"
    assert decide([*crowded, machine(4, "b")], voters(1, 2, 3)) is None  # nothing would be gained
    assert decide([*crowded, machine(4, "c")], voters(1, 2, 3, silent=(3,)), silent_for=1.0) is None


def test_a_dead_manager_is_replaced_and_comes_back_as_a_worker() -> None:
    world = World([*(machine(i, role=M) for i in (1, 2, 3)), machine(4), machine(5)], wanted=3)
    world.kill("n3")
    world.run(60)
    assert sorted(node.id for node in world.standing()) == ["n1", "n2", "n4"]
    assert len(world.voters()) == 3
    world.revive("n3")
    world.run(60)
    assert world.view.nodes["n3"].role is NodeRole.WORKER
    assert world.view.nodes["n3"].manager_status is None
    assert len(world.changes) == 2


def test_a_broken_worker_is_passed_over() -> None:
    world = World([machine(1, role=M), machine(2), machine(3), machine(4)], wanted=3)
    world.broken.add("n2")
    world.run(300)
    assert sorted(node.id for node in world.standing()) == ["n1", "n3", "n4"]
    assert world.view.nodes["n2"].role is NodeRole.WORKER


zones = st.sampled_from(["", "a", "b", "c"])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    managers = draw(st.integers(1, 5))
    workers = draw(st.integers(0, 5))
    nodes = [machine(i, draw(zones), M) for i in range(1, managers + 1)]
    nodes += [machine(i, draw(zones)) for i in range(managers + 1, managers + workers + 1)]
    return World(nodes, wanted=draw(st.integers(1, 7)))


def is_settled(world: World, live: int) -> bool:
    """As many managers as wanted (or as there are machines), none of them dead, spread as evenly as can be."""
    standing = world.standing()
    count = min(world.wanted, live)
    if len(standing) != count or (live >= world.wanted and len(world.voters()) != count):
        return False
    zones_now = Counter(zone_of(node) for node in standing)
    idle = [n for n in world.view.nodes.values() if n.id in world.alive and n.spec.role is NodeRole.WORKER]
    return all(max(zones_now.values()) - zones_now[zone_of(node)] < 2 for node in idle)


events = st.tuples(st.integers(0, 60), st.integers(0, 9), st.sampled_from(["kill", "revive", "promote", "demote"]))


def befall(world: World, what: str, name: str) -> None:
    match what:
        case "kill":
            world.kill(name)
        case "revive":
            world.revive(name)
        case "promote":
            world.ask_for(name, NodeRole.MANAGER)
        case "demote":
            world.ask_for(name, NodeRole.WORKER)


@settings(max_examples=80, deadline=None)
@given(world=worlds(), happened=st.lists(events, max_size=12))
def test_machines_die_and_return_and_the_managers_settle(world: World, happened: list[tuple[int, int, str]]) -> None:
    """No change of ours ever costs the majority (`World` asserts it at each), whatever users ask for at the same time;
    in the end, with as many machines as quorum needs, the number and the spread are as wanted, and stay so."""
    names = sorted(world.view.nodes)
    for seconds, number, what in happened:
        befall(world, what, names[number % len(names)])
        world.run(seconds)
    if not world.has_quorum():
        for name in names:  # only machines that return bring back a lost majority
            world.revive(name)
    world.run(900)
    assert is_settled(world, len(world.alive)), (world.changes, world.members, sorted(world.alive))
    made = len(world.changes)
    world.run(200)
    assert len(world.changes) == made, "it never comes to rest"


@settings(max_examples=30, deadline=None)
@given(world=worlds(), wanted=st.integers(1, 7))
def test_at_most_one_change_is_under_way(world: World, wanted: int) -> None:
    """After each promotion or demotion nothing else is decided until it is done and some time has passed."""
    at: list[float] = []
    for _ in range(400):
        made = len(world.changes)
        world.second()
        if len(world.changes) > made:
            at.append(world.now)
    assert all(later - earlier > TIMING.settle_s for earlier, later in itertools.pairwise(at))
