"""What is reserved and free on a node, as the API counts it; and what events say of what changed."""

from __future__ import annotations

import pytest

from pyswarm_common.model import (
    Config,
    ContainerStatus,
    FileSpec,
    GenericResource,
    HealthState,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    ResourceRequirements,
    Resources,
    Secret,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.api.event_attributes import attributes
from pyswarm_manager.api.node_resources import left, node_resources
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Tables

RESERVED = Resources(nano_cpus=500, memory_bytes=64)


def task(name: str, state: TaskState, **fields: object) -> Task:
    spec = TaskSpec(resources=ResourceRequirements(reservations=RESERVED))
    return Task(id=name, service_id="s", node_id="n1", spec=spec, status=TaskStatus(state=state), **fields)  # type: ignore[arg-type]


def test_what_has_ended_is_free_and_what_is_stopping_is_not() -> None:
    tables, node = Tables(), Node(id="n1", description=NodeDescription(resources=Resources(nano_cpus=2000)))
    tables.put(node)
    for item in (
        task("runs", TaskState.RUNNING),
        task("stops", TaskState.RUNNING, desired_state=TaskState.SHUTDOWN),
        task("ended", TaskState.SHUTDOWN),
    ):
        tables.put(item)
    found = node_resources(tables, node)
    assert (found.reserved.nano_cpus, found.free.nano_cpus, found.tasks) == (1000, 1000, 2)
    assert (found.reserved.memory_bytes, found.free.memory_bytes) == (128, 0)  # the node does not say what it has


def test_generic_resources_are_given_by_name_or_by_number() -> None:
    total = (
        GenericResource(kind="gpu", value="a"),
        GenericResource(kind="gpu", value="b"),
        GenericResource(kind="ssd", count=5),
    )
    reserved = (GenericResource(kind="gpu", value="a"), GenericResource(kind="ssd", count=2))
    assert left(Resources(generic=total), Resources(generic=reserved)).generic == (
        GenericResource(kind="gpu", value="b"),
        GenericResource(kind="ssd", count=3),
    )


def test_an_update_says_old_and_new() -> None:
    old = Service(id="s", spec=ServiceSpec(name="web", replicas=1, labels={"tier": "front"}))
    new = Service(id="s", spec=ServiceSpec(name="web", replicas=3, labels={"tier": "front"}))
    assert attributes(Event(old, new)) == {
        "name": "web",
        "tier": "front",
        "replicas.old": "1",
        "replicas.new": "3",
    }
    assert attributes(Event(None, new)) == attributes(Event(new, None)) == {"name": "web", "tier": "front"}


def test_a_node_s_state() -> None:
    old = Node(id="n", status=NodeStatus(state=NodeState.READY))
    new = Node(id="n", status=NodeStatus(state=NodeState.DOWN))
    assert attributes(Event(old, new)) == {"name": "n", "state.old": "ready", "state.new": "down"}


def test_the_health_and_the_end_of_a_task() -> None:
    def with_health(health: HealthState, state: TaskState = TaskState.RUNNING) -> Task:
        return Task(
            id="t",
            service_id="s",
            service_name="web",
            slot=1,
            status=TaskStatus(state=state, container=ContainerStatus(health=health, exit_code=3)),
        )

    changed = attributes(Event(with_health(HealthState.STARTING), with_health(HealthState.HEALTHY)))
    assert (changed["health.old"], changed["health.new"]) == ("starting", "healthy")
    ended = attributes(Event(None, with_health(HealthState.HEALTHY, TaskState.FAILED)))
    assert (ended["name"], ended["exitCode"]) == ("web.1", "3")


@pytest.mark.parametrize("kind", [Secret, Config])
def test_material_is_never_told(kind: type[Secret] | type[Config]) -> None:
    old = kind(id="x", spec=FileSpec(name="key", data=b"HUSH"))
    new = kind(id="x", spec=FileSpec(name="key", data=b"HUSH"), superseded=True)
    assert attributes(Event(old, new)) == {"name": "key", "superseded.old": "false", "superseded.new": "true"}
