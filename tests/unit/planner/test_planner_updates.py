"""Updates and rollbacks: what restarts nothing, what must be there before anything stops, who goes on with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from msgspec.structs import replace
from planner_invariants import check_invariants
from planner_world import CORE, GIB, World

from pyswarm_common.model import (
    ContainerSpec,
    EndpointSpec,
    FailureAction,
    HealthCheck,
    LogDriver,
    NodeState,
    Placement,
    PlacementPreference,
    PortConfig,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
    UpdateStatus,
)
from pyswarm_manager.planner.dirty import everything
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.store.changes import Update

ORDERS = pytest.mark.parametrize("order", list(UpdateOrder), ids=lambda order: order.name.lower())


@pytest.fixture
def world() -> World:
    world = World()
    for name in ("n1", "n2"):
        world.node(name)
    return world


def state_of(world: World) -> UpdateState:
    status = world.tables.services["web"].update_status
    return UpdateState.NONE if status is None else status.state


def images(world: World) -> list[str]:
    return [task.spec.container.image for task in world.running("web")]


# ---- what no task sees


def retasked(spec: ServiceSpec, **changes: object) -> ServiceSpec:
    return replace(spec, task=replace(spec.task, **changes))


def recontained(spec: ServiceSpec, **changes: object) -> ServiceSpec:
    return retasked(spec, container=replace(spec.task.container, **changes))


UNSEEN: dict[str, Callable[[ServiceSpec], ServiceSpec]] = {
    "labels": lambda spec: replace(spec, labels={"a": "b"}),
    "update": lambda spec: replace(spec, update=UpdateConfig(parallelism=7)),
    "rollback": lambda spec: replace(spec, rollback=UpdateConfig(parallelism=7)),
    "priority": lambda spec: replace(spec, priority=5),
    "rebalance": lambda spec: replace(spec, rebalance=True),
    "replicas": lambda spec: replace(spec, replicas=4),
    "ingress port": lambda spec: replace(spec, endpoint=EndpointSpec()),
    "restart": lambda spec: retasked(spec, restart=RestartPolicy(max_attempts=3)),
    "preferences": lambda spec: retasked(
        spec, placement=Placement(preferences=(PlacementPreference(spread_descriptor="node.labels.zone"),))
    ),
    "satisfied constraint": lambda spec: retasked(spec, placement=Placement(constraints=("node.id!=n9",))),
    "credentials": lambda spec: recontained(spec, registry_auth=b"another"),
    "empty health check": lambda spec: recontained(spec, healthcheck=HealthCheck()),
    "empty log driver": lambda spec: recontained(spec, log_driver=LogDriver()),
    "default grace": lambda spec: recontained(spec, stop_grace_period_s=10.0),
    "order of capabilities": lambda spec: recontained(spec, cap_add=("CAP_B", "CAP_A")),
}


@pytest.mark.parametrize("change", UNSEEN.values(), ids=UNSEEN)
def test_a_change_that_no_task_sees_restarts_nothing(
    world: World, change: Callable[[ServiceSpec], ServiceSpec]
) -> None:
    container = ContainerSpec(image="img:1", registry_auth=b"one", cap_add=("CAP_A", "CAP_B"))
    endpoint = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))
    world.service("web", 2, task=TaskSpec(container=container), endpoint=endpoint)
    world.settle()
    before = {task.id for task in world.running("web")}
    service = world.tables.services["web"]
    world.apply(Update(replace(service, spec=change(service.spec))))
    world.settle(10)
    assert before <= {task.id for task in world.running("web")}
    assert all(task.status.state is TaskState.RUNNING for task in world.tasks("web", wanted=False))


def test_what_a_task_sees_does_restart_it(world: World) -> None:
    world.service("web", 1)
    world.settle()
    for spec in (
        recontained(world.tables.services["web"].spec, env=("A=1",)),
        recontained(world.tables.services["web"].spec, stop_grace_period_s=11.0),
        retasked(world.tables.services["web"].spec, force_update=1),
    ):
        (before,) = world.running("web")
        world.apply(Update(replace(world.tables.services["web"], spec=spec)))
        world.settle(100)
        (after,) = world.running("web")
        assert after.id != before.id


# ---- what is there before something stops


@ORDERS
def test_nothing_stops_before_its_successor_is_prepared(world: World, order: UpdateOrder) -> None:
    world.service("web", 2, update=UpdateConfig(order=order))
    world.settle()
    old = {task.id for task in world.running("web")}
    world.image("web", "img:2")
    for _ in range(30):
        world.plan_all()
        for task in world.tables.service_tasks("web"):
            if task.id in old and task.desired_state > TaskState.RUNNING:
                successors = [other for other in world.tasks("web") if other.slot == task.slot]
                assert [s.status.state >= TaskState.READY for s in successors] == [True]
        world.agents_step()
    assert images(world) == ["img:2"] * 2


def big(image: str, reserved: int = 6 * GIB) -> TaskSpec:
    reservations = Resources(memory_bytes=reserved)
    return TaskSpec(container=ContainerSpec(image=image), resources=ResourceRequirements(reservations=reservations))


def check_handed_over(world: World, old: dict[str, Task]) -> None:
    """An old task stops when its successor is prepared in its place, and that starts when the old one has ended."""
    for task in world.tables.service_tasks("web"):
        if task.id in old and task.desired_state > TaskState.RUNNING:
            (successor,) = [other for other in world.tasks("web") if other.slot == task.slot]
            assert successor.status.state >= TaskState.READY
            assert successor.node_id == task.node_id
        elif task.id not in old and task.status.state > TaskState.READY:
            (before,) = [item for item in old.values() if item.slot == task.slot]
            assert world.tables.tasks[before.id].status.state.is_terminal


@pytest.mark.parametrize("reserved", [6 * GIB, 8 * GIB], ids=["as much", "more"])
def test_a_successor_without_room_of_its_own_is_prepared_in_its_predecessors_place(world: World, reserved: int) -> None:
    """Nodes of 8 GiB, tasks of 6: no node ever has room for a second one."""
    world.service("web", 2, task=big("img:1"))
    world.settle()
    old = {task.id: task for task in world.running("web")}
    world.respec("web", task=big("img:2", reserved))
    for _ in range(40):
        world.plan_all()
        check_invariants(world)
        check_handed_over(world, old)
        world.agents_step()
        assert len(world.running("web")) >= 1
    assert images(world) == ["img:2"] * 2


@pytest.mark.parametrize("replicas", [2, 1], ids=["every node", "one node"])
def test_a_successor_with_the_same_host_port_is_prepared_beside_its_predecessor(world: World, replicas: int) -> None:
    """Where all nodes have the port taken there is no other place, and the old one serves until the new is prepared."""
    if replicas == 1:
        world.drain("n2")
    port = PortConfig(target_port=80, published_port=8080, publish_mode=PublishMode.HOST)
    world.service("web", replicas, endpoint=EndpointSpec(ports=(port,)))
    world.settle()
    old = {task.id: task for task in world.running("web")}
    world.image("web", "img:2")
    for _ in range(40):
        world.plan_all()
        check_invariants(world)
        check_handed_over(world, old)
        world.agents_step()
    assert images(world) == ["img:2"] * replicas


def test_without_room_too_an_image_that_cannot_be_had_stops_nothing(world: World) -> None:
    world.service("web", 2, task=big("img:1"))
    world.settle()
    before = world.running("web")
    world.respec("web", task=big("nonsense"))
    for _ in range(60):
        world.plan_all()
        for task in world.tasks("web"):
            if task.status.state is TaskState.PREPARING:
                world.report(task, TaskState.REJECTED, "No such image")
        world.agents_step()
        world.now += 1.0
    assert {task.id for task in world.running("web")} == {task.id for task in before}
    assert state_of(world) is UpdateState.PAUSED


def test_a_successor_that_asks_for_more_than_its_predecessors_node_has_goes_nowhere_and_the_old_one_stops(
    world: World,
) -> None:
    world.service("web", 1, task=big("img:1"))
    world.settle()
    world.respec("web", task=big("img:2", 9 * GIB))
    world.settle(10)
    (task,) = world.tasks("web")
    assert "insufficient memory" in task.status.message


# ---- regressions of Swarm's


def test_tasks_that_wait_for_ever_are_mended_by_a_mended_spec(world: World) -> None:
    """R7: a constraint, a reservation and a port that nobody can satisfy."""
    mistakes: list[tuple[dict[str, object], dict[str, object]]] = [
        (
            {"task": TaskSpec(placement=Placement(constraints=("node.labels.gpu==yes",)))},
            {"task": TaskSpec()},
        ),
        (
            {"task": TaskSpec(resources=ResourceRequirements(reservations=Resources(memory_bytes=99 * GIB)))},
            {"task": TaskSpec()},
        ),
        (
            {"task": TaskSpec(resources=ResourceRequirements(reservations=Resources(nano_cpus=99 * CORE)))},
            {"task": TaskSpec(resources=ResourceRequirements(reservations=Resources(nano_cpus=CORE)))},
        ),
        ({"task": TaskSpec(placement=Placement(max_replicas_per_node=1))}, {"task": TaskSpec()}),
    ]
    for number, (mistake, mended) in enumerate(mistakes):
        name = f"web{number}"
        world.service(name, 3, **mistake)
        world.settle(60)
        assert len(world.running(name)) < 3
        world.respec(name, **mended)
        world.settle(60)
        assert len(world.running(name)) == 3, [task.status for task in world.tasks(name)]
        check_invariants(world)


@ORDERS
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("mode", list(PublishMode), ids=lambda mode: mode.name.lower())
def test_a_changed_port_comes_into_effect(world: World, order: UpdateOrder, replicas: int, mode: PublishMode) -> None:
    """R14: start-first with a port change."""

    def ports(published: int) -> EndpointSpec:
        return EndpointSpec(ports=(PortConfig(target_port=80, published_port=published, publish_mode=mode),))

    world.service("web", replicas, update=UpdateConfig(order=order), endpoint=ports(8080))
    world.settle()
    for published in (8081, 8082, 8082):
        world.image("web", f"img:{published}")
        world.respec("web", endpoint=ports(published))
        world.settle(60)
        running = world.running("web")
        assert len(running) == replicas
        assert {port.published_port for task in running for port in task.ports if mode is PublishMode.HOST} <= {
            published
        }
        assert [port.published_port for port in world.tables.services["web"].endpoint.ports] == [published]
        assert set(images(world)) == {f"img:{published}"}
        assert state_of(world) is UpdateState.COMPLETED
        check_invariants(world)


# ---- pausing, going on, going back


def fail_new(world: World, image: str, rounds: int = 30) -> None:
    """Tasks of that image end when they start."""
    for _ in range(rounds):
        world.plan_all()
        for task in world.tasks("web"):
            if task.spec.container.image == image and task.status.state is TaskState.STARTING:
                world.report(task, TaskState.FAILED)
        world.agents_step()


def test_a_paused_update_goes_on_when_it_is_asked_for_again(world: World) -> None:
    world.service("web", 3)
    world.settle()
    world.image("web", "img:2")
    fail_new(world, "img:2")
    assert state_of(world) is UpdateState.PAUSED
    service = world.tables.services["web"]
    again = UpdateStatus(state=UpdateState.UPDATING, started_at=world.now)
    world.apply(Update(replace(service, update_status=again)))
    assert world.tables.services["web"].revision == service.revision
    world.settle(60)
    assert state_of(world) is UpdateState.COMPLETED
    assert images(world) == ["img:2"] * 3


def test_an_update_that_fails_goes_back_and_leaves_a_revision_of_the_planner(world: World) -> None:
    world.service("web", 3, update=UpdateConfig(parallelism=1, failure_action=FailureAction.ROLLBACK))
    world.settle()
    world.image("web", "bad")
    fail_new(world, "bad")
    world.settle(60)
    assert state_of(world) is UpdateState.ROLLBACK_COMPLETED
    assert images(world) == ["img:1"] * 3
    revision = world.tables.service_revisions["web.3"]
    assert (revision.author, revision.spec.task.container.image) == ("planner", "img:1")


def test_an_update_that_fails_pauses_if_there_is_no_way_back(world: World) -> None:
    """The network that the previous spec was on is gone, or its port is another service's now."""
    world.network("net")
    update = UpdateConfig(parallelism=0, failure_action=FailureAction.ROLLBACK)
    taken = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))
    for name, before, lost in (("web", {"networks": ["net"]}, "network"), ("api", {"endpoint": taken}, "port")):
        world.service(name, 2, update=update, **before)  # type: ignore[arg-type]
        world.settle(10)
        world.retask(name, container=ContainerSpec(image="bad"), networks=())
        world.respec(name, endpoint=EndpointSpec())
        world.settle()
        if lost == "network":
            world.remove(world.tables.networks["net"])
        else:
            world.service("other", 1, endpoint=taken)
        for task in world.running(name):
            world.report(task, TaskState.FAILED)
        world.plan_all()
        status = world.tables.services[name].update_status
        assert status is not None
        assert status.state is UpdateState.PAUSED
        assert "cannot come back: " + lost in status.message


def test_a_rollback_is_complete_when_the_old_tasks_have_run_and_not_before(world: World) -> None:
    """Also when every slot failed, so that the rollback replaces ended tasks and opens no slot."""
    rollback = UpdateConfig(parallelism=0, monitor_s=5.0)
    world.service("web", 2, update=replace(rollback, failure_action=FailureAction.ROLLBACK), rollback=rollback)
    world.settle()
    world.image("web", "bad")
    for _ in range(20):
        world.plan_all()
        world.agents_step()
        for task in world.running("web"):
            if task.spec.container.image == "bad":
                world.report(task, TaskState.FAILED)
        if state_of(world) is not UpdateState.UPDATING:
            break
    assert state_of(world) is UpdateState.ROLLBACK_STARTED
    began = world.now
    while state_of(world) is UpdateState.ROLLBACK_STARTED:
        assert world.now < began + 60
        world.agents_step()
        world.now += 1.0
        world.plan_all()
    assert state_of(world) is UpdateState.ROLLBACK_COMPLETED
    assert world.now >= began + 5.0
    assert images(world) == ["img:1"] * 2


# ---- leaders that die at any step


CONFIGS = {
    "one by one": UpdateConfig(parallelism=1, monitor_s=0.0),
    "two, start-first": UpdateConfig(parallelism=2, order=UpdateOrder.START_FIRST, monitor_s=0.0),
    "all at once": UpdateConfig(parallelism=0, monitor_s=0.0),
    "one by one, with a delay": UpdateConfig(parallelism=1, delay_s=3.0, monitor_s=2.0),
}


LAST_DEATH = 22
"""By then the quick ones of these updates are over."""


def steps_of(world: World, cut: int, at: int) -> Iterator[None]:
    """Plans and agents in turn, one second each; at one step the leader dies with only `cut` changes committed."""
    for step in count():
        if step == at:
            changes = world.plan(commit=False).changes
            if changes[:cut]:
                world.apply(*changes[:cut])
            world.dirty, world.wakes, world.ledger = everything(), {}, Ledger.of(world.tables)
        world.plan_all()
        check_invariants(world)
        world.agents_step()
        world.now += 1.0
        yield


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("cut", range(4))
def test_an_update_and_a_rollback_outlive_a_leader_at_every_step(config: UpdateConfig, cut: int) -> None:
    for at in range(24):
        world = World()
        for name in ("n1", "n2"):
            world.node(name)
        world.service("web", 3, update=config, rollback=config)
        world.settle(10)
        world.image("web", "img:2")
        _run(world, steps_of(world, cut, at), "img:2", UpdateState.COMPLETED, config)
        service = world.tables.services["web"]
        back = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at=world.now)
        assert service.previous_spec is not None
        world.apply(Update(replace(service, spec=service.previous_spec, update_status=back)))
        _run(world, steps_of(world, cut, at), "img:1", UpdateState.ROLLBACK_COMPLETED, config)
        again = world.plan_again()
        assert again.changes == ()


def _run(world: World, steps: Iterator[None], image: str, end: UpdateState, config: UpdateConfig) -> None:
    fewest = 3
    for step, _ in enumerate(steps):
        fewest = min(fewest, len({task.slot for task in world.running("web")}))
        if step >= LAST_DEATH and state_of(world) is end:
            break
        assert step < 100, world.tables.services["web"].update_status
    assert state_of(world) is end
    assert images(world) == [image] * 3
    if config.order is UpdateOrder.START_FIRST:
        assert fewest == 3
    elif config.parallelism == 1:
        assert fewest >= 2


def test_a_crash_loop_keeps_as_much_as_the_history_allows(world: World) -> None:
    """R17: a service that never comes up for a day leaves no more behind than after its first minutes."""
    world.service("web", 2, task=TaskSpec(restart=RestartPolicy(delay_s=0.0, max_delay_s=1.0)))
    world.settle()
    most = 0
    for _ in range(1000):
        world.plan_all()
        for task in world.running("web"):
            world.report(task, TaskState.FAILED)
        world.agents_step()
        world.now += 1.0
        most = max(most, len(world.tables.tasks))
        assert all(len(task.restart_times) <= 16 for task in world.tables.tasks.values())
    assert most <= 2 * (5 + 2)
    assert len(world.tables.service_revisions) == 1
    assert len(world.ledger.failures.get("web", {})) <= 2 * 6


def test_a_node_that_is_lost_in_the_middle_of_an_update_does_not_hold_it_up(world: World) -> None:
    world.service("web", 4, update=UpdateConfig(parallelism=1, monitor_s=0.0))
    world.settle()
    world.image("web", "img:2")
    for _ in range(3):
        world.plan_all()
        world.agents_step()
    world.node_state("n2", NodeState.DOWN)
    world.settle(60)
    assert images(world) == ["img:2"] * 4
    assert state_of(world) is UpdateState.COMPLETED
