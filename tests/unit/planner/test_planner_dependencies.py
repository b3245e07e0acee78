"""Start conditions: first tasks wait for other services, say so, and never wait again once they were let go."""

from __future__ import annotations

import pytest
from planner_invariants import check_ledger
from planner_world import World

from pyswarm_common.model import (
    ContainerStatus,
    DependencyCondition,
    NodeState,
    RestartCondition,
    RestartPolicy,
    ServiceDependency,
    ServiceMode,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.store.changes import SetTaskStatus

STARTED, HEALTHY, COMPLETED = DependencyCondition


def on(service: str, condition: DependencyCondition = HEALTHY) -> tuple[ServiceDependency, ...]:
    return (ServiceDependency(service=service, condition=condition),)


@pytest.fixture
def world() -> World:
    world = World()
    for name in ("n1", "n2"):
        world.node(name)
    return world


def reasons(world: World, service: str) -> set[str]:
    world.plan_all()
    check_ledger(world)
    again = world.plan_again()
    assert again.changes == (), again.changes
    return {task.status.message for task in world.tasks(service) if task.status.state is TaskState.PENDING}


def test_first_tasks_wait_until_every_replica_is_healthy(world: World) -> None:
    world.service("app", 2, depends_on=on("db"))
    world.service("db", 2)
    assert reasons(world, "app") == {"waits for service db to be healthy"}
    first, second = world.tasks("db")
    world.report(first, TaskState.RUNNING)
    assert reasons(world, "app") == {"waits for service db to be healthy"}
    world.report(second, TaskState.RUNNING)
    assert reasons(world, "app") == set()
    world.settle()
    assert len(world.running("app")) == 2


def test_what_was_let_go_once_never_waits_again(world: World) -> None:
    world.service("db", 1)
    world.service("app", 1, depends_on=on("db"))
    world.settle()
    (db,) = world.running("db")
    (app,) = world.running("app")
    world.report(db, TaskState.FAILED)
    world.report(app, TaskState.FAILED)
    world.respec("db", stopped=True)
    world.settle(10)
    assert len(world.running("app")) == 1
    world.image("app", "img:2")
    world.settle()
    assert len(world.running("app")) == 1
    world.respec("app", replicas=3)
    world.settle()
    assert len(world.running("app")) == 3


def test_a_start_waits_anew(world: World) -> None:
    world.service("db", 1)
    world.service("app", 2, depends_on=on("db"))
    world.settle()
    for name in ("app", "db"):
        world.respec(name, stopped=True)
    world.settle()
    assert world.tasks("app") == []
    world.respec("app", stopped=False)
    assert reasons(world, "app") == {"waits for service db to be healthy (it is stopped)"}
    world.respec("db", stopped=False)
    assert reasons(world, "app") == {"waits for service db to be healthy"}
    world.settle()
    assert len(world.running("app")) == 2


def test_a_service_that_does_not_exist_may_come_later_and_go_again(world: World) -> None:
    world.service("app", 1, depends_on=on("db", STARTED))
    assert reasons(world, "app") == {"waits for service db to be started (there is no such service)"}
    world.service("db", 1)
    assert reasons(world, "app") == {"waits for service db to be started"}
    world.remove(world.tables.services["db"])
    assert reasons(world, "app") == {"waits for service db to be started (there is no such service)"}
    world.respec("app", depends_on=())
    world.settle()
    assert len(world.running("app")) == 1


def test_started_is_before_healthy(world: World) -> None:
    world.service("db", 1)
    world.service("early", 1, depends_on=on("db", STARTED))
    world.service("late", 1, depends_on=on("db", HEALTHY))
    world.plan_all()
    (db,) = world.tasks("db")
    for state, container in ((TaskState.READY, None), (TaskState.STARTING, ContainerStatus())):
        world.apply(SetTaskStatus(db.id, TaskStatus(state=state, container=container)))
        assert reasons(world, "early")
    world.apply(SetTaskStatus(db.id, TaskStatus(state=TaskState.STARTING, container=ContainerStatus(pid=7))))
    assert reasons(world, "early") == set()
    assert reasons(world, "late")


def test_completed_waits_for_the_end_of_every_replica(world: World) -> None:
    once = TaskSpec(restart=RestartPolicy(condition=RestartCondition.ON_FAILURE))
    world.service("migrate", 2, task=once)
    world.service("app", 1, depends_on=on("migrate", COMPLETED))
    world.settle()
    first, second = world.running("migrate")
    world.report(first, TaskState.COMPLETE)
    world.report(second, TaskState.FAILED)
    assert reasons(world, "app") == {"waits for service migrate to be completed"}
    world.settle(10)
    (second,) = world.running("migrate")
    world.report(second, TaskState.COMPLETE)
    world.settle()
    assert len(world.running("app")) == 1


def test_completed_waits_for_a_job(world: World) -> None:
    world.service("migrate", mode=ServiceMode.REPLICATED_JOB)
    world.service("app", 1, depends_on=on("migrate", COMPLETED))
    world.settle()
    (task,) = world.running("migrate")
    assert reasons(world, "app") == {"waits for service migrate to be completed"}
    world.report(task, TaskState.COMPLETE)
    world.settle()
    assert len(world.running("app")) == 1


def test_a_job_waits_too(world: World) -> None:
    world.service("migrate", mode=ServiceMode.REPLICATED_JOB, depends_on=on("db"))
    world.settle()
    assert reasons(world, "migrate") == {"waits for service db to be healthy (there is no such service)"}
    world.service("db", 1)
    world.settle()
    assert len(world.running("migrate")) == 1


def test_global_services_wait_and_are_waited_for_where_nodes_are_ready(world: World) -> None:
    world.service("agent", mode=ServiceMode.GLOBAL)
    world.service("app", mode=ServiceMode.GLOBAL, depends_on=on("agent"))
    world.plan_all()
    assert reasons(world, "app") == {"waits for service agent to be healthy"}
    first, second = world.tasks("agent")
    world.report(first, TaskState.RUNNING)
    assert reasons(world, "app") == {"waits for service agent to be healthy"}
    world.node_state(second.node_id, NodeState.DOWN)
    assert reasons(world, "app") <= {"no suitable node (1 node not available for new tasks)"}
    world.settle()
    assert len(world.running("app")) == 1


def test_a_service_wanted_with_no_replicas_is_not_waited_for(world: World) -> None:
    world.service("db", 0)
    world.service("app", 1, depends_on=on("db"))
    world.settle()
    assert len(world.running("app")) == 1


def test_several_conditions_are_all_told(world: World) -> None:
    world.service("app", 1, depends_on=(*on("db"), *on("cache", STARTED)))
    world.service("db", 1)
    world.service("cache", 1)
    assert reasons(world, "app") == {"waits for service db to be healthy and service cache to be started"}
    (db,) = world.tasks("db")
    world.report(db, TaskState.RUNNING)
    assert reasons(world, "app") == {"waits for service cache to be started"}


def test_a_chain_starts_in_order(world: World) -> None:
    names = ["s0", "s1", "s2", "s3"]
    for earlier, name in zip(["", *names], names, strict=False):
        world.service(name, 2, depends_on=on(earlier) if earlier else ())
    began: list[str] = []
    for _ in range(60):
        world.plan_all()
        world.agents_step()
        began += [name for name in names if name not in began and world.running(name)]
    assert began == names
    assert all(len(world.running(name)) == 2 for name in names)
