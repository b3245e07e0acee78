"""Where tasks go: filters with their words, strategies, affinities, taints, generic resources, failing nodes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from planner_invariants import check_ledger
from planner_world import CORE, GIB, World

from pyswarm_common.model import (
    Affinity,
    ClusterSpec,
    ContainerSpec,
    DeviceMapping,
    GenericResource,
    LogDriver,
    Mount,
    MountType,
    NetworkAttachmentSpec,
    Placement,
    PlacementPreference,
    PlacementStrategy,
    Platform,
    Plugin,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    Taint,
    TaintEffect,
    TaskSpec,
    TaskState,
    Toleration,
)
from pyswarm_manager.planner import draft
from pyswarm_manager.planner.schedule.backoff import failing_nodes
from pyswarm_manager.store.changes import Update

GPU = Taint(key="gpu", value="yes", effect=TaintEffect.NO_SCHEDULE)


def spec(
    *,
    cpus: float = 0,
    memory: int = 0,
    pids: int = 0,
    generic: tuple[GenericResource, ...] = (),
    container: ContainerSpec | None = None,
    **placement: Any,
) -> TaskSpec:
    reserved = Resources(nano_cpus=int(cpus * CORE), memory_bytes=memory, pids=pids, generic=generic)
    return TaskSpec(
        container=container or ContainerSpec(image="img:1"),
        resources=ResourceRequirements(reservations=reserved),
        restart=RestartPolicy(delay_s=0.0),
        placement=Placement(**placement),
    )


def describe(world: World, name: str, **changes: Any) -> None:
    node = world.tables.nodes[name]
    description = msgspec.structs.replace(node.description, **changes)
    world.apply(Update(msgspec.structs.replace(node, description=description)))


def give(world: World, name: str, *generic: GenericResource, pids: int = 0) -> None:
    resources = world.tables.nodes[name].description.resources
    describe(world, name, resources=msgspec.structs.replace(resources, generic=generic, pids=pids))


def taint(world: World, name: str, *taints: Taint) -> None:
    world.respec_node(name, taints=taints)


def nodes_of(world: World, service: str) -> list[str]:
    return sorted(task.node_id for task in world.tasks(service) if task.node_id)


def waiting(world: World, service: str) -> list[str]:
    return [task.status.message for task in world.tasks(service) if task.status.state < TaskState.ASSIGNED]


def three_nodes() -> World:
    world = World()
    for name in ("n1", "n2", "n3"):
        world.node(name, zone="east" if name == "n1" else "west")
    return world


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (spec(cpus=5), "insufficient cpu on 3 nodes"),
        (spec(memory=9 * GIB), "insufficient memory on 3 nodes"),
        (spec(pids=10), "insufficient pids on 3 nodes"),
        (spec(generic=(GenericResource("gpu", 1),)), "insufficient generic resources on 3 nodes"),
        (spec(constraints=("node.labels.zone==north",)), "scheduling constraints not satisfied on 3 nodes"),
        (spec(platforms=(Platform("arm64", "linux"),)), "unsupported platform on 3 nodes"),
        (spec(affinities=(Affinity("db"),)), "affinity to other services not satisfied on 3 nodes"),
        (
            spec(cpus=5, constraints=("node.labels.zone==west",)),
            "insufficient cpu on 2 nodes; scheduling constraints not satisfied on 1 node",
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "spec",
)
def test_a_waiting_task_says_which_filter_keeps_how_many_nodes_away(task: TaskSpec, words: str) -> None:
    world = three_nodes()
    world.service("s", 1, task=task)
    world.plan_all()
    assert waiting(world, "s") == [f"no suitable node ({words})"]


def test_plugins_and_devices_that_nodes_tell_of() -> None:
    world = three_nodes()
    volume = Mount(type=MountType.VOLUME, source="data", target="/data", volume_driver="nfs")
    container = ContainerSpec(
        image="i", mounts=(volume,), log_driver=LogDriver("gelf"), devices=(DeviceMapping("/dev/x"),)
    )
    describe(world, "n1", plugins=(Plugin("Volume", "local"), Plugin("Log", "gelf")))
    describe(world, "n2", plugins=(Plugin("Volume", "nfs"), Plugin("Log", "json-file")))
    describe(world, "n3", devices=("/dev/null",))
    world.service("s", 1, task=spec(container=container))
    world.plan_all()
    assert waiting(world, "s") == ["no suitable node (missing plugin on 2 nodes; missing device on 1 node)"]
    describe(world, "n2", plugins=(Plugin("Volume", "nfs"), Plugin("Log", "gelf")), devices=("/dev/x",))
    world.plan_all()
    assert nodes_of(world, "s") == ["n2"]


def test_an_encrypted_network_keeps_to_nodes_that_can_encrypt() -> None:
    world = three_nodes()
    world.network("sealed", options={"encrypted": ""})
    describe(world, "n1", plugins=(Plugin("Network", "overlay"),))
    describe(world, "n2", plugins=(Plugin("Network", "overlay"),))
    describe(world, "n3", plugins=(Plugin("Network", "overlay"),))
    on_it = TaskSpec(container=ContainerSpec(image="i"), networks=(NetworkAttachmentSpec(target="sealed"),))
    world.service("s", 1, task=on_it)
    world.plan_all()
    assert waiting(world, "s") == ["no suitable node (no encryption of networks (WireGuard) on 3 nodes)"]
    describe(world, "n2", plugins=(Plugin("Network", "overlay"), Plugin("Network", "encrypted")))
    world.plan_all()
    assert nodes_of(world, "s") == ["n2"]


def test_an_architecture_is_known_by_both_its_names() -> None:
    world = three_nodes()
    world.service("s", 1, task=spec(platforms=(Platform("amd64", "linux"),)))
    world.plan_all()
    assert waiting(world, "s") == []


# ---- taints


def test_a_taint_keeps_new_tasks_away_unless_they_tolerate_it() -> None:
    world = three_nodes()
    world.service("before", 3)
    world.plan_all()
    taint(world, "n1", GPU)
    world.service("plain", 4)
    world.service("tolerant", 3, task=spec(tolerations=(Toleration("gpu", "yes"),)))
    world.service("any", 3, task=spec(tolerations=(Toleration(),)))
    world.service("other", 2, task=spec(tolerations=(Toleration("gpu", "no"),)))
    world.settle()
    assert nodes_of(world, "before") == ["n1", "n2", "n3"]
    assert nodes_of(world, "plain") == ["n2", "n2", "n3", "n3"]
    assert nodes_of(world, "tolerant") == ["n1", "n2", "n3"]
    assert "n1" in nodes_of(world, "any")
    assert nodes_of(world, "other") == ["n2", "n3"]


def test_no_execute_moves_what_runs_there() -> None:
    world = three_nodes()
    world.service("plain", 3)
    world.service("stays", 3, task=spec(tolerations=(Toleration("gpu", effects=(TaintEffect.NO_EXECUTE,)),)))
    world.service("agent", mode=ServiceMode.GLOBAL)
    world.settle()
    taint(world, "n1", msgspec.structs.replace(GPU, effect=TaintEffect.NO_EXECUTE))
    world.settle(60)
    assert "n1" not in nodes_of(world, "plain")
    assert len(world.running("plain")) == 3
    assert nodes_of(world, "stays") == ["n1", "n2", "n3"]
    assert nodes_of(world, "agent") == ["n2", "n3"]


def test_prefer_no_schedule_is_a_last_resort() -> None:
    world = three_nodes()
    taint(world, "n1", msgspec.structs.replace(GPU, effect=TaintEffect.PREFER_NO_SCHEDULE))
    world.service("s", 4, task=spec(memory=4 * GIB))
    world.plan_all()
    assert nodes_of(world, "s") == ["n2", "n2", "n3", "n3"]
    world.respec("s", replicas=5)
    world.plan_all()
    assert nodes_of(world, "s") == ["n1", "n2", "n2", "n3", "n3"]


def test_a_global_service_does_not_begin_on_a_tainted_node_and_does_not_wait_for_it() -> None:
    world = three_nodes()
    taint(world, "n1", GPU)
    world.service("agent", mode=ServiceMode.GLOBAL)
    world.settle()
    assert nodes_of(world, "agent") == ["n2", "n3"]
    taint(world, "n1")
    world.settle()
    assert nodes_of(world, "agent") == ["n1", "n2", "n3"]


# ---- generic resources


def test_named_resources_are_given_to_one_task_each() -> None:
    world = three_nodes()
    give(
        world,
        "n1",
        GenericResource("gpu", value="A"),
        GenericResource("gpu", value="B"),
        GenericResource("gpu", value="C"),
    )
    world.service("s", 2, task=spec(generic=(GenericResource("gpu", 1),)))
    world.service("big", 1, task=spec(generic=(GenericResource("gpu", 2),)))
    world.settle()
    given = [item.value for name in ("s", "big") for task in world.running(name) for item in task.generic_resources]
    assert sorted(given) == sorted(set(given))
    assert len(world.running("s")) == 2
    assert waiting(world, "big") == ["no suitable node (insufficient generic resources on 3 nodes)"]
    world.respec("s", replicas=1)
    world.settle()
    assert len(world.running("big")[0].generic_resources) == 2
    check_ledger(world)


def test_discrete_resources_are_counted() -> None:
    world = three_nodes()
    give(world, "n2", GenericResource("ssd", 5))
    world.service("s", 3, task=spec(generic=(GenericResource("ssd", 2),)))
    world.settle()
    assert nodes_of(world, "s") == ["n2", "n2"]
    assert world.running("s")[0].generic_resources == (GenericResource("ssd", 2),)
    assert world.ledger.reserved("n2").generic == (GenericResource("ssd", 4),)
    check_ledger(world)


def test_pids_are_reserved() -> None:
    world = three_nodes()
    give(world, "n3", pids=100)
    world.service("s", 3, task=spec(pids=40))
    world.settle()
    assert nodes_of(world, "s") == ["n3", "n3"]


# ---- strategies


@pytest.mark.parametrize("by_cluster", [False, True])
def test_binpack_fills_a_node_before_the_next_is_begun(by_cluster: bool) -> None:
    world = three_nodes()
    strategy = PlacementStrategy.DEFAULT if by_cluster else PlacementStrategy.BINPACK
    if by_cluster:
        cluster = world.tables.cluster
        assert cluster is not None
        packed = ClusterSpec(placement_strategy=PlacementStrategy.BINPACK)
        world.apply(Update(msgspec.structs.replace(cluster, spec=packed)))
    for number in range(5):
        world.service(f"s{number}", 1, task=spec(memory=3 * GIB, strategy=strategy))
    world.service("spread", 3, task=spec(strategy=PlacementStrategy.SPREAD))
    world.plan_all()
    placed = Counter(node for number in range(5) for node in nodes_of(world, f"s{number}"))
    assert sorted(placed.values()) == [1, 2, 2]
    assert nodes_of(world, "spread") == ["n1", "n2", "n3"]


def test_binpack_heeds_the_maximum_per_node() -> None:
    world = three_nodes()
    world.service("s", 4, task=spec(strategy=PlacementStrategy.BINPACK, max_replicas_per_node=1))
    world.plan_all()
    assert nodes_of(world, "s") == ["n1", "n2", "n3"]


# ---- affinity


def test_tasks_go_where_another_service_runs_and_wait_until_it_does() -> None:
    world = three_nodes()
    world.service("web", 2, task=spec(affinities=(Affinity("db"),)))
    world.plan_all()
    assert len(waiting(world, "web")) == 2
    world.service("db", 1)
    world.settle()
    assert set(nodes_of(world, "web")) == set(nodes_of(world, "db"))
    assert len(world.running("web")) == 2


def test_a_place_may_be_a_zone() -> None:
    world = three_nodes()
    world.service("db", 1, task=spec(constraints=("node.labels.zone==west",)))
    world.service("web", 4, task=spec(affinities=(Affinity("db", topology="node.labels.zone"),)))
    world.service("batch", 2, task=spec(affinities=(Affinity("db", anti=True, topology="node.labels.zone"),)))
    world.settle()
    assert nodes_of(world, "web") == ["n2", "n2", "n3", "n3"]
    assert nodes_of(world, "batch") == ["n1", "n1"]


def test_away_from_itself_is_one_per_place() -> None:
    world = three_nodes()
    world.service("s", 3, task=spec(affinities=(Affinity("s", anti=True, topology="node.labels.zone"),)))
    world.settle()
    assert len(world.running("s")) == 2
    assert waiting(world, "s") == ["no suitable node (affinity to other services not satisfied on 3 nodes)"]


def test_near_itself_begins_anywhere_and_stays_together() -> None:
    world = three_nodes()
    world.service("s", 5, task=spec(affinities=(Affinity("s", topology="node.labels.zone"),)))
    world.settle()
    zones = {world.tables.nodes[node].spec.labels["zone"] for node in nodes_of(world, "s")}
    assert len(zones) == 1
    assert len(world.running("s")) == 5


def test_who_wants_to_be_away_keeps_the_other_away_too() -> None:
    world = three_nodes()
    world.service("quiet", 1, task=spec(affinities=(Affinity("loud", anti=True),)))
    world.plan_all()
    world.service("loud", 6)
    world.settle()
    assert not set(nodes_of(world, "quiet")) & set(nodes_of(world, "loud"))
    assert len(world.running("loud")) == 6


def test_a_wish_is_no_must() -> None:
    world = three_nodes()
    world.service("db", 1, task=spec(constraints=("node.id==n3",)))
    world.plan_all()
    world.service("near", 2, task=spec(memory=8 * GIB, affinities=(Affinity("db", weight=50),)))
    world.service("away", 1, task=spec(affinities=(Affinity("db", anti=True, weight=50), Affinity("near", weight=1))))
    world.plan_all()
    assert "n3" in nodes_of(world, "near")
    assert len(nodes_of(world, "near")) == 2
    assert nodes_of(world, "away") == [node for node in nodes_of(world, "near") if node != "n3"]


# ---- preferences


def test_a_branch_over_its_share_is_used_when_the_others_are_full() -> None:
    """Choosing ends, although the branch that has most is the only one left with room."""
    world = World()
    world.node("a1", zone="a", rack="1", memory=GIB)
    world.node("a2", zone="a", rack="2", memory=GIB)
    world.node("b1", zone="b", rack="1", memory=16 * GIB)
    preferences = (PlacementPreference("node.labels.zone"), PlacementPreference("node.labels.rack"))
    world.service("s", 10, task=spec(memory=GIB, preferences=preferences))
    world.plan_all()
    assert Counter(nodes_of(world, "s")) == {"a1": 1, "a2": 1, "b1": 8}
    world.respec("s", replicas=30)
    world.plan_all()
    assert len(waiting(world, "s")) == 30 - 18


# ---- nodes where a service keeps failing


def fail_on(world: World, service: str, node: str) -> None:
    for task in world.running(service):
        if task.node_id == node:
            world.report(task, TaskState.FAILED)


def test_a_node_on_which_a_service_keeps_failing_comes_last() -> None:
    world = World()
    world.node("n1")
    world.service("s", 1, task=spec())
    for _ in range(5):
        world.settle(20)
        fail_on(world, "s", "n1")
    world.node("n2")
    world.service("busy", 3, task=spec(constraints=("node.id==n2",)))
    world.settle(20)
    assert nodes_of(world, "s") == ["n2"], "n2 has more tasks, but on n1 it failed five times"
    world.service("new", 1)
    world.settle()
    assert nodes_of(world, "new") == ["n1"], "it is a matter of that service alone"


def test_failures_are_forgotten_with_time_and_with_another_spec() -> None:
    world = World()
    world.node("n1")
    world.service("s", 1, task=spec())
    for _ in range(5):
        world.settle(20)
        fail_on(world, "s", "n1")
    world.plan_all()
    world.settle(20)
    assert nodes_of(world, "s") == ["n1"]
    assert len(failing_nodes(world.ledger, world.tables.services["s"], world.now)) == 1
    assert failing_nodes(world.ledger, world.tables.services["s"], world.now + 301) == {}
    world.image("s", "img:2")
    assert failing_nodes(world.ledger, world.tables.services["s"], world.now) == {}


# ---- enforcement


def test_a_label_that_goes_takes_the_task_along() -> None:
    world = three_nodes()
    world.service("s", 1, task=spec(constraints=("node.labels.zone==east",)))
    world.settle()
    assert nodes_of(world, "s") == ["n1"]
    world.respec_node("n1", labels={})
    world.respec_node("n2", labels={"zone": "east"})
    world.settle()
    assert [task.node_id for task in world.running("s")] == ["n2"]


def test_completed_job_tasks_reserve_nothing() -> None:
    world = World()
    world.node("n1", memory=4 * GIB)
    world.service("job", mode=ServiceMode.REPLICATED_JOB, task=spec(memory=3 * GIB))
    world.settle()
    for task in world.running("job"):
        world.report(task, TaskState.COMPLETE)
    world.service("s", 1, task=spec(memory=3 * GIB, constraints=("node.labels.x!=1",)))
    world.settle()
    world.respec_node("n1", labels={"y": "2"})
    world.settle()
    assert len(world.running("s")) == 1
    assert world.ledger.reserved("n1").memory_bytes == 3 * GIB


def test_what_is_too_much_goes_in_several_plans_and_what_is_left_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plan keeps the leader's loop for long; giving up a few at a time chooses as giving up all at once does."""
    left = []
    for limit in (1_000, 7):
        monkeypatch.setattr(draft, "MAX_REMOVALS", limit)
        world = World()
        for number in range(4):
            world.node(f"n{number}")
        world.service("web", 50)
        world.settle()
        world.respec("web", replicas=9)
        first = world.plan()
        assert len(first.changes) == min(limit, 41)
        assert bool(first.unfinished) == (limit < 41)
        world.plan_all()
        assert len(world.running("web")) == 9
        world.settle()
        left.append(sorted((task.slot, task.node_id) for task in world.running("web")))
    assert left[0] == left[1]
