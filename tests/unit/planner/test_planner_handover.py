"""The order without lost requests: what holds in every node's load balancer while tasks are replaced, at each step.

No chance of a timeout here: nodes act when the test says, in any order, and the leader may be another one at any time.
"""

from __future__ import annotations

from random import Random

import pytest
from handover_world import HandoverWorld
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_common.model import (
    Availability,
    EndpointSpec,
    NodeState,
    PortConfig,
    Task,
    TaskState,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from pyswarm_manager.planner.dirty import everything
from pyswarm_manager.planner.ledger import Ledger

NODES = ("n1", "n2", "n3")
PUBLISHED = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))


def world_with(replicas: int, order: UpdateOrder, parallelism: int = 1) -> HandoverWorld:
    """`web` runs on a network that `client` is on as well, and every node has it in its load balancers."""
    world = HandoverWorld()
    world.network("ingress", ingress=True)
    world.network("net")
    for name in NODES:
        world.node(name)
    update = UpdateConfig(order=order, parallelism=parallelism, monitor_s=0.0)
    world.service("web", replicas, networks=["net"], update=update, endpoint=PUBLISHED)
    world.service("client", 3, networks=["net"], image="client:1")
    world.rest()
    assert len(world.running("web")) == replicas
    return world


def serving(world: HandoverWorld) -> set[str]:
    """The tasks whose containers answer."""
    return {task.id for task in world.tables.service_tasks("web") if task.status.state is TaskState.RUNNING}


def check_load_balancers(world: HandoverWorld, least: int) -> None:
    """Wherever a connection begins, it goes to a container that answers, and there is one."""
    answering = serving(world)
    for name in NODES:
        if world.tables.nodes[name].status.state is NodeState.DOWN:
            continue  # nobody can tell it anything
        networks = [world.ledger.ingress_id]
        if any(a.network_id == "net" for task in world.tables.tasks_on(name) for a in task.networks if _is_up(task)):
            networks.append("net")
        for network_id in networks:
            backends = world.hosts[name].backends(network_id, "web")
            assert backends <= answering, f"{name} sends connections to what was stopped"
            assert len(backends) >= least, f"{name} has nobody to send connections to"


def _is_up(task: Task) -> bool:
    return task.service_id == "client" and task.status.state is TaskState.RUNNING


def random_step(world: HandoverWorld, chance: Random) -> None:
    name = chance.choice(NODES)
    match chance.randrange(12):
        case 0 | 1 | 2:
            world.tell(name)
        case 3 | 4 | 5:
            world.act(name)
        case 6 | 7 | 8:
            world.step(name)
        case 9:
            world.lead()
        case 10:  # the leader dies with a part of its plan committed
            changes = world.plan(commit=False).changes
            world.apply(*changes[: chance.randrange(len(changes) + 1)])
            world.lead()
        case _:
            world.plan_all()


def change_something(world: HandoverWorld, chance: Random, number: int) -> None:
    match chance.randrange(3):
        case 0:
            world.image("web", f"img:{number}")
        case 1:
            for name in NODES:
                world.drain(name, Availability.ACTIVE)
            world.drain(chance.choice(NODES))
        case _:
            world.retask("web", force_update=number)


@settings(max_examples=30, deadline=None)  # long histories each; the simulator plays many more
@given(replicas=st.integers(1, 3), parallelism=st.integers(0, 2), seed=st.integers(0, 1 << 30))
def test_start_first_never_leaves_a_load_balancer_without_a_backend_that_answers(
    replicas: int, parallelism: int, seed: int
) -> None:
    world, chance = world_with(replicas, UpdateOrder.START_FIRST, parallelism), Random(seed)
    for number in range(1, 4):
        change_something(world, chance, number)
        for _ in range(chance.randrange(250)):
            random_step(world, chance)
            check_load_balancers(world, least=1)
    world.rest()
    check_load_balancers(world, least=replicas)
    assert len(world.running("web")) == replicas
    assert serving(world) == {task.id for task in world.running("web")}


@settings(max_examples=30, deadline=None)  # long histories each; the simulator plays many more
@given(replicas=st.integers(1, 3), order=st.sampled_from(UpdateOrder), seed=st.integers(0, 1 << 30))
def test_whatever_is_stopped_was_out_of_every_load_balancer_before(
    replicas: int, order: UpdateOrder, seed: int
) -> None:
    world, chance = world_with(replicas, order), Random(seed)
    for number in range(1, 4):
        if chance.random() < 0.4:
            world.respec("web", replicas=chance.randrange(4))
        else:
            change_something(world, chance, number)
        for _ in range(chance.randrange(250)):
            random_step(world, chance)
            check_load_balancers(world, least=0)
    world.rest()
    check_load_balancers(world, least=len(world.running("web")))


def test_an_update_goes_on_when_the_slowest_load_balancer_knows_the_successor() -> None:
    world = world_with(2, UpdateOrder.START_FIRST)
    before = serving(world)
    world.image("web", "img:2")
    for _ in range(20):
        world.plan_all()
        for name in NODES:
            world.tell(name)
        for name in ("n1", "n2"):  # n3 programs nothing
            while world.act(name):
                pass
            world.step(name)
        world.step("n3")
    assert before <= serving(world), "nothing was stopped"
    made = [task for task in world.tasks("web") if task.id not in before]
    assert len(made) == 1, "no second slot was opened"
    assert world.told_tables is not None
    if made[0].status.state is TaskState.RUNNING:
        assert world.told_tables.waits_for(made[0]) == ["n3"]
    world.rest()
    assert not before & serving(world)
    assert world.tables.services["web"].update_status.state is UpdateState.COMPLETED  # type: ignore[union-attr]


@pytest.mark.parametrize(("state", "is_waited_for"), [(NodeState.SUSPECT, True), (NodeState.DOWN, False)])
def test_a_node_that_is_merely_silent_is_waited_for(state: NodeState, is_waited_for: bool) -> None:
    """It may still be sending; one that is down is given up."""
    world = world_with(1, UpdateOrder.START_FIRST)
    (old,) = serving(world)
    silent = next(name for name in NODES if name != world.tables.tasks[old].node_id)
    world.node_state(silent, state)
    world.image("web", "img:2")
    for _ in range(30):
        world.plan_all()
        for name in NODES:
            if name != silent:
                world.tell(name)
                while world.act(name):
                    pass
                world.step(name)
    assert (old in serving(world)) == is_waited_for
    if is_waited_for:
        world.node_state(silent, NodeState.READY)
        world.rest()
        assert old not in serving(world)


def test_a_new_leader_waits_for_everybody_again() -> None:
    world = world_with(1, UpdateOrder.START_FIRST)
    (old,) = serving(world)
    world.image("web", "img:2")
    while len(world.running("web")) < 2:
        world.plan_all()
        for name in NODES:
            world.tell(name)
            world.act(name)
            world.step(name)
    world.lead()
    world.dirty, world.ledger = everything(), Ledger.of(world.tables)
    world.plan_all()
    assert {task.id for task in world.tasks("web")} >= {old}, "nobody has told this leader what it knows"
    world.rest()
    assert old not in serving(world)


def test_a_removed_service_is_not_waited_for() -> None:
    world = world_with(2, UpdateOrder.STOP_FIRST)
    world.remove(world.tables.services["web"])
    world.plan_all()
    for name in NODES:
        world.tell(name)
        while world.act(name):
            pass
        world.step(name)
    assert not serving(world)
