"""Explanations: what keeps a task from each node, why it is where it is, and suggestions that keep their word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_world import CORE, GIB, World

from pyswarm_common.model import (
    Affinity,
    Availability,
    EndpointSpec,
    GenericResource,
    NodeState,
    Placement,
    PlacementPreference,
    Platform,
    PortConfig,
    PublishMode,
    ResourceRequirements,
    Resources,
    ServiceMode,
    Taint,
    TaintEffect,
    Task,
    TaskSpec,
    TaskState,
)
from pyswarm_manager.planner.schedule.refusals import Fix
from pyswarm_manager.planner.schedule.suggest import applied, applied_to_node
from pyswarm_manager.planner.schedule.why import Why, why
from pyswarm_manager.store.changes import Update


def asking(memory: int = 0, cpus: float = 0, generic: tuple[GenericResource, ...] = (), **placement: Any) -> TaskSpec:
    reserved = Resources(memory_bytes=memory, nano_cpus=int(cpus * CORE), generic=generic)
    return TaskSpec(resources=ResourceRequirements(reservations=reserved), placement=Placement(**placement))


def why_waiting(world: World, service: str = "s") -> Why:
    [task, *_] = [task for task in world.tasks(service) if task.status.state < TaskState.ASSIGNED]
    return explained(world, task)


def explained(world: World, task: Task, limit: int = 100) -> Why:
    found = why(world.tables, task, world.now, limit)
    assert found is not None
    return found


def texts(found: Why) -> list[str]:
    return [suggestion.text for suggestion in found.suggestions]


def test_the_smallest_reservation_that_would_do_comes_from_the_node_with_most_room() -> None:
    world = World()
    for name, memory in (("n1", 4), ("n2", 2), ("n3", 3)):
        world.node(name, memory=memory * GIB)
    world.service("fill", 3, task=asking(memory=int(1.8 * GIB)))
    world.plan_all()
    world.service("s", 1, task=asking(memory=3 * GIB))
    world.plan_all()
    found = why_waiting(world)
    assert found.summary == "no suitable node (insufficient memory on 3 nodes)"
    assert texts(found) == ["reserve 2.2 GiB of memory instead of 3 GiB"]
    assert found.one_more_node == "add a node with 3 GiB of memory free"
    assert found.verdicts[0].refusals[0].startswith("insufficient memory: ")


def test_a_label_may_be_added_or_the_constraint_removed() -> None:
    world = World()
    world.node("n1")
    world.service("s", 1, task=asking(constraints=("node.labels.gpu==yes",)))
    world.plan_all()
    found = why_waiting(world)
    assert texts(found) == ["remove the constraint node.labels.gpu==yes", "add the label gpu=yes to node n1"]
    assert found.one_more_node == "add a node with label gpu=yes"


@pytest.mark.parametrize(
    ("task", "node"),
    [
        (asking(constraints=("node.hostname==n9",)), ""),
        (asking(affinities=(Affinity("db"),)), ""),
        (asking(constraints=("node.role==manager",)), "add a node with node.role==manager"),
        (asking(constraints=("node.labels.a>3", "node.id!=n1")), "add a node with node.labels.a>3"),
        (asking(cpus=9, generic=(GenericResource("gpu", 2),)), "add a node with gpu=2, 9 CPUs free"),
    ],
    ids=["hostname", "affinity", "role", "number", "amounts"],
)
def test_one_more_node_is_suggested_only_where_it_can_help(task: TaskSpec, node: str) -> None:
    world = World()
    world.node("n1")
    world.service("s", 1, task=task)
    world.plan_all()
    assert why_waiting(world).one_more_node == node


def test_what_is_needed_together_is_suggested_together() -> None:
    world = World()
    world.node("n1", memory=GIB)
    world.respec_node("n1", taints=(Taint("gpu", "yes"),))
    world.service("s", 1, task=asking(memory=2 * GIB, platforms=(Platform("arm64", "linux"),)))
    world.plan_all()
    [first, second] = why_waiting(world).suggestions
    assert [fix.text for fix in first.fixes] == [
        "use an image that also runs on linux/x86_64",
        "tolerate the taint gpu=yes:no-schedule",
        "reserve 1 GiB of memory instead of 2 GiB",
    ]
    assert "remove the taint gpu=yes:no-schedule from node n1" in second.text


def test_nothing_is_suggested_for_a_task_that_has_a_node_and_the_choice_is_told() -> None:
    world = World()
    for name, zone in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        world.node(name, zone=zone)
    world.service("busy", 1, task=asking(constraints=("node.id==n3",)))
    preferences = (PlacementPreference("node.labels.zone"),)
    world.service("s", 2, task=asking(cpus=1, preferences=preferences, constraints=("node.id!=n2",)))
    world.settle()
    [task] = [task for task in world.running("s") if task.node_id == "n3"]
    found = explained(world, task)
    assert found.suggestions == ()
    assert found.one_more_node == ""
    chosen, other, unfit = found.verdicts
    assert (chosen.node_id, chosen.is_chosen, chosen.fits, chosen.score.spread) == ("n3", True, True, (0,))
    assert (other.node_id, other.score.own_tasks, other.score.spread) == ("n1", 1, (1,))
    assert unfit.refusals == ("constraint node.id!=n2 not satisfied",)
    assert chosen.score.tasks == 1, "itself is not counted"


def test_nodes_that_are_down_or_drained_say_so() -> None:
    world = World()
    for name in ("n1", "n2"):
        world.node(name)
    world.node_state("n1", NodeState.DOWN)
    world.drain("n2", Availability.PAUSE)
    world.service("s", 1)
    world.plan_all()
    found = why_waiting(world)
    assert [verdict.refusals for verdict in found.verdicts] == [("node is down",), ("availability is pause",)]
    assert sorted(texts(found)) == ["bring node n1 back", "make node n2 active"] or len(texts(found)) == 1


def test_a_global_task_is_about_its_own_node_alone() -> None:
    world = World()
    world.node("n1", memory=GIB)
    world.node("n2", memory=4 * GIB)
    world.service("s", mode=ServiceMode.GLOBAL, task=asking(memory=2 * GIB))
    world.plan_all()
    found = why_waiting(world)
    assert (found.nodes, found.one_more_node) == (1, "")
    assert texts(found) == ["reserve 1 GiB of memory instead of 2 GiB"]


def test_explanations_are_bounded() -> None:
    world = World()
    for number in range(300):
        world.node(f"n{number}", zone=f"z{number}", memory=GIB + number)
    world.service("s", 1, task=asking(memory=2 * GIB, constraints=("node.labels.zone==x", "node.role==manager")))
    world.plan_all()
    [task] = world.tasks("s")
    found = explained(world, task, limit=10)
    assert (len(found.verdicts), found.nodes) == (10, 300)
    assert len(found.suggestions) <= 5
    assert len(task.status.message) < 200


def test_a_task_whose_service_is_gone_has_no_explanation() -> None:
    world = World()
    world.node("n1")
    world.service("s", 1)
    world.settle()
    [task] = world.tasks("s")
    world.remove(world.tables.services["s"])
    assert why(world.tables, task, world.now) is None


# ---- every suggestion keeps its word

nodes = st.lists(
    st.fixed_dictionaries(
        {
            "memory": st.integers(1, 4),
            "cpus": st.integers(1, 4),
            "labels": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])),
            "taints": st.lists(
                st.builds(Taint, st.sampled_from("xy"), st.sampled_from(["", "v"]), st.sampled_from(TaintEffect)),
                max_size=2,
            ),
            "availability": st.sampled_from([Availability.ACTIVE, Availability.ACTIVE, Availability.PAUSE]),
            "gpus": st.integers(0, 2),
        }
    ),
    min_size=1,
    max_size=4,
)
wants = st.fixed_dictionaries(
    {
        "task": st.builds(
            asking,
            memory=st.sampled_from([0, GIB, 3 * GIB, 9 * GIB]),
            cpus=st.sampled_from([0, 1, 6]),
            generic=st.sampled_from([(), (GenericResource("gpu", 1),), (GenericResource("gpu", 3),)]),
            constraints=st.lists(
                st.sampled_from(["node.labels.a==1", "node.labels.b!=2", "node.role==manager"]), unique=True
            ).map(tuple),
            platforms=st.sampled_from([(), (Platform("arm64", "linux"),)]),
            max_replicas_per_node=st.integers(0, 1),
            affinities=st.sampled_from([(), (Affinity("fill"),), (Affinity("fill", anti=True),)]),
        ),
        "host_port": st.booleans(),
    }
)


@settings(deadline=None, max_examples=60)
@given(nodes=nodes, wanted=wants, fill=st.integers(0, 4))
def test_each_suggestion_helps_and_nothing_of_it_is_too_much(
    nodes: list[dict[str, Any]], wanted: dict[str, Any], fill: int
) -> None:
    world = stuck_world(nodes, wanted, fill)
    waiting = [task for task in world.tasks("s") if task.status.state < TaskState.ASSIGNED]
    if not waiting:
        return
    found = explained(world, waiting[0])
    assert found.suggestions or any(not_ours(verdict.refusals) for verdict in found.verdicts)
    for suggestion in found.suggestions:
        assert gets_a_node(nodes, wanted, fill, suggestion.fixes), suggestion.text
        for fix in suggestion.fixes:
            others = [other for other in suggestion.fixes if other is not fix]
            assert not gets_a_node(nodes, wanted, fill, others), (suggestion.text, fix.text)


def not_ours(refusals: tuple[str, ...]) -> bool:
    return any("must not be near it" in text for text in refusals)


def stuck_world(nodes: list[dict[str, Any]], wanted: dict[str, Any], fill: int) -> World:
    """Some nodes, another service on them, and then the service with two replicas."""
    world = World()
    for number, node in enumerate(nodes):
        world.node(f"n{number}", memory=node["memory"] * GIB, cpus=node["cpus"], gpus=node["gpus"], **node["labels"])
    port = PortConfig(target_port=80, published_port=80, publish_mode=PublishMode.HOST)
    endpoint = EndpointSpec(ports=(port,) if wanted["host_port"] else ())
    world.service("fill", fill, task=asking(memory=GIB // 2), endpoint=endpoint)
    world.settle()
    for number, node in enumerate(nodes):
        gentle = [taint for taint in node["taints"] if taint.effect is not TaintEffect.NO_EXECUTE]
        world.respec_node(f"n{number}", taints=tuple(gentle), availability=node["availability"])
    world.plan_all()
    world.service("s", 1, task=wanted["task"], endpoint=endpoint)
    world.plan_all()
    return world


def gets_a_node(nodes: list[dict[str, Any]], wanted: dict[str, Any], fill: int, fixes: Sequence[Fix]) -> bool:
    """Whether the real planner places the task once the changes are made."""
    world = stuck_world(nodes, wanted, fill)
    service = world.tables.services["s"]
    spec = service.spec
    for fix in fixes:
        spec = applied(spec, fix)
    world.apply(Update(msgspec.structs.replace(service, spec=spec)))
    for node in list(world.tables.nodes.values()):
        changed = node
        for fix in fixes:
            changed = applied_to_node(changed, fix)
        if changed is not node:
            world.apply(Update(changed))
    world.plan_all()
    return any(task.status.state >= TaskState.ASSIGNED for task in world.tasks("s"))


@pytest.mark.parametrize("mode", [ServiceMode.REPLICATED, ServiceMode.GLOBAL], ids=lambda mode: mode.name)
def test_an_explanation_changes_nothing(mode: ServiceMode) -> None:
    world = World()
    world.node("n1")
    world.service("s", 1 if mode is ServiceMode.REPLICATED else None, mode=mode, task=asking(memory=GIB))
    world.settle()
    before = world.tables.copy()
    for task in world.tasks("s"):
        explained(world, task)
    assert world.tables == before
