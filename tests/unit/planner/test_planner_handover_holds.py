"""A node that is up but programs no table holds up nobody for ever: no stop, no update, no drain's deadline."""

from __future__ import annotations

from random import Random

import pytest
from handover_world import HandoverWorld
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pyswarm_common.model import Availability, Task, TaskState, UpdateConfig, UpdateOrder, UpdateState
from pyswarm_manager.dispatcher import holds
from pyswarm_manager.dispatcher.core.patience import LOOKS_LIMIT
from pyswarm_manager.dispatcher.holds import Holds
from pyswarm_manager.dispatcher.writer import ReportWriter
from pyswarm_manager.store.changes import SetTaskStatus, Update

NODES = ("n1", "n2", "n3")


class Notes(ReportWriter):
    """Writes at once."""

    def __init__(self, world: HandoverWorld) -> None:
        self._world = world

    def note(self, task_id: str, message: str) -> None:
        status = self._world.tables.tasks[task_id].status
        self._world.apply(SetTaskStatus(task_id, replace(status, message=message)))


def world_with(order: UpdateOrder) -> HandoverWorld:
    world = HandoverWorld()
    world.network("ingress", ingress=True)
    world.network("net")
    for name in NODES:
        world.node(name)
    update = UpdateConfig(order=order, monitor_s=0.0)
    world.service("web", 2, networks=["net"], update=update)
    world.service("client", 3, networks=["net"], image="client:1")
    world.rest()
    return world


def holds_of(world: HandoverWorld) -> Holds:
    assert world.told_tables is not None

    def mark(node_id: str, task_id: str) -> None:
        if node_id in world.sessions:
            world.sessions[node_id].touched[task_id] = None

    return Holds(
        world.tables, world.told_tables, Notes(world), mark, world._tell_told, lambda: world.now, lambda: world.now
    )


def go_on(world: HandoverWorld, wedged: str, rounds: int = 30) -> None:
    """Every node does what it is told; the wedged one's tasks go on, but it hears of nothing new."""
    for _ in range(rounds):
        world.plan_all()
        for name in NODES:
            world.tell(name)
            while name != wedged and world.act(name):
                pass
            world.step(name)


def wedged_for(world: HandoverWorld) -> str:
    """A node without a task of `web`, so that what has to stop is elsewhere."""
    return next(name for name in NODES if not any(task.node_id == name for task in world.running("web")))


def stopping(world: HandoverWorld) -> list[Task]:
    tasks = world.tables.service_tasks("web")
    return [t for t in tasks if t.desired_state > TaskState.RUNNING and t.status.state is TaskState.RUNNING]


@settings(max_examples=20, deadline=None)
@given(order=st.sampled_from(UpdateOrder), seed=st.integers(0, 1 << 30))
def test_an_update_ends_though_a_node_programs_nothing(order: UpdateOrder, seed: int) -> None:
    world, chance = world_with(order), Random(seed)
    wedged, watch = wedged_for(world), holds_of(world)
    world.retask("web", force_update=1)
    world.respec_node(wedged, availability=Availability.PAUSE)
    for _ in range(4 * LOOKS_LIMIT):
        go_on(world, wedged, chance.randrange(1, 12))
        watch.look()
    go_on(world, wedged)
    assert world.tables.services["web"].update_status.state is UpdateState.COMPLETED  # type: ignore[union-attr]
    assert not stopping(world)
    assert len(world.running("web")) == 2


def test_who_is_waited_for_is_said_and_the_wait_is_patient() -> None:
    world = world_with(UpdateOrder.STOP_FIRST)
    wedged, watch = wedged_for(world), holds_of(world)
    world.respec("web", replicas=1)
    for _ in range(LOOKS_LIMIT):
        go_on(world, wedged, 3)
        watch.look()
    (held,) = stopping(world)
    assert held.status.message == f"waits until node {wedged} knows that it is no backend any more"
    watch.look()
    go_on(world, wedged, 3)
    assert not stopping(world)


def test_a_drains_deadline_ends_the_wait_for_the_tasks_of_its_node() -> None:
    world = world_with(UpdateOrder.START_FIRST)
    wedged = wedged_for(world)
    old = next(task for task in world.running("web"))
    watch = holds_of(world)
    node = world.tables.nodes[old.node_id]
    spec = replace(node.spec, availability=Availability.DRAIN, drain_deadline_s=60.0)
    world.apply(Update(replace(node, spec=spec, drain_started_at=world.now)))
    watch.node_changed(node.id, world.tables.nodes[node.id])
    go_on(world, wedged)
    watch.end_overdue()
    go_on(world, wedged)
    assert world.tables.tasks[old.id].status.state is TaskState.RUNNING
    world.now += 60.0
    world.dirty.slots["web", old.slot] = None  # as the plan asked for
    watch.end_overdue()
    go_on(world, wedged)
    assert world.tables.tasks[old.id].status.state > TaskState.RUNNING


def test_a_new_drain_of_the_node_is_patient_again() -> None:
    world = world_with(UpdateOrder.START_FIRST)
    assert world.told_tables is not None
    watch, node = holds_of(world), world.tables.nodes["n1"]
    drained = replace(node.spec, availability=Availability.DRAIN, drain_deadline_s=60.0)
    watch.node_changed("n1", replace(node, spec=drained, drain_started_at=world.now))
    world.now += 60.0
    watch.end_overdue()
    assert world.told_tables.unheld == {"n1"}
    watch.node_changed("n1", node)
    assert not world.told_tables.unheld


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "node h0 knows"), (2, "nodes h0, h1 know"), (7, "nodes h0, h1, h2, h3, h4 and 2 more know")],
)
def test_not_more_nodes_are_named_than_anybody_reads(count: int, said: str) -> None:
    world = HandoverWorld()
    for number in range(count):
        world.node(f"h{number}")
    assert holds_of(world)._named([f"h{number}" for number in range(count)]) == said
    assert holds.NAMED == 5
