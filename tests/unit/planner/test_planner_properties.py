"""Properties of the planner under random operations: users, agents and failures in any order.

After each step the invariants hold; planning twice gives an empty second plan, also to a leader that knows nothing; any
prefix of a plan is a state to go on from; and once the faults stop, the cluster becomes what was asked for.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from planner_invariants import check_converged, check_invariants, is_held
from planner_world import GIB, World

from pyswarm_common.model import (
    Affinity,
    Availability,
    ContainerSpec,
    DependencyCondition,
    EndpointSpec,
    FailureAction,
    GenericResource,
    NetworkAttachmentSpec,
    NodeState,
    Placement,
    PlacementPreference,
    PlacementStrategy,
    PortConfig,
    PublishMode,
    RebalanceState,
    RebalanceStatus,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceDependency,
    ServiceMode,
    Taint,
    TaintEffect,
    TaskSpec,
    TaskState,
    Toleration,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
    UpdateStatus,
)
from pyswarm_manager.planner.dirty import everything
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.store.changes import Delete, SetDesired, Update
from pyswarm_manager.store.tables import Kind

STARTED, HEALTHY, _ = DependencyCondition
NODES = ["n1", "n2", "n3", "n4"]
SERVICES = ["s1", "s2", "s3"]
NETWORKS = ["netA", "netB"]
GPUS = 24
"""On every node: enough for all of them."""

tasks_specs = st.builds(
    TaskSpec,
    container=st.builds(ContainerSpec, image=st.sampled_from(["a", "b", "c"])),
    resources=st.builds(
        ResourceRequirements,
        reservations=st.builds(
            Resources,
            memory_bytes=st.sampled_from([0, GIB // 4, GIB]),
            generic=st.sampled_from([(), (), (GenericResource("gpu", 1),)]),
        ),
    ),
    restart=st.builds(RestartPolicy, delay_s=st.sampled_from([0.0, 1.0, None])),
    placement=st.builds(
        Placement,
        constraints=st.sampled_from([(), ("node.labels.zone!=north",)]),
        preferences=st.sampled_from([(), (PlacementPreference(spread_descriptor="node.labels.zone"),)]),
        tolerations=st.sampled_from([(), (), (Toleration(key="t"),)]),
        affinities=st.sampled_from([(), (), (Affinity("s1", anti=True, weight=9), Affinity("s2", weight=5))]),
        strategy=st.sampled_from(PlacementStrategy),
    ),
    networks=st.lists(st.sampled_from(NETWORKS), unique=True).map(
        lambda names: tuple(NetworkAttachmentSpec(target=name) for name in names)
    ),
)
updates = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 2),
    delay_s=st.sampled_from([0.0, 2.0]),
    failure_action=st.sampled_from(FailureAction),
    monitor_s=st.sampled_from([0.0, None]),
    order=st.sampled_from(UpdateOrder),
)
endpoints = st.builds(
    EndpointSpec,
    ports=st.lists(
        st.builds(
            PortConfig,
            target_port=st.just(80),
            published_port=st.just(0),
            publish_mode=st.sampled_from(PublishMode),
        ),
        max_size=1,
    ).map(tuple),
)
anything = st.integers(0, 10_000)


class Cluster(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize()
    def start(self) -> None:
        self.world.network("ingress", ingress=True)
        for name in NETWORKS:
            self.world.network(name, subnets=("10.9.0.0/24",) if name == "netA" else ())
        self.world.node("n1", zone="east", gpus=GPUS)

    # ---- users

    @rule(name=st.sampled_from(NODES), zone=st.sampled_from(["east", "west"]))
    def add_node(self, name: str, zone: str) -> None:
        if name not in self.world.tables.nodes:
            self.world.node(name, zone=zone, gpus=GPUS)

    @rule(name=st.sampled_from(NODES[1:]))
    def remove_node(self, name: str) -> None:
        if name in self.world.tables.nodes:
            self.world.remove(self.world.tables.nodes[name])

    @rule(
        name=st.sampled_from(NODES),
        availability=st.sampled_from(Availability),
        deadline_s=st.sampled_from([0.0, 3.0]),
    )
    def set_availability(self, name: str, availability: Availability, deadline_s: float) -> None:
        if name in self.world.tables.nodes:
            self.world.respec_node(name, availability=availability, drain_deadline_s=deadline_s)

    @rule(name=st.sampled_from(NODES), effects=st.lists(st.sampled_from(TaintEffect), max_size=2))
    def taint(self, name: str, effects: list[TaintEffect]) -> None:
        if name in self.world.tables.nodes:
            self.world.respec_node(name, taints=tuple(Taint("t", effect=effect) for effect in effects))

    @rule(name=st.sampled_from(SERVICES))
    def ask_for_balance(self, name: str) -> None:
        service = self.world.tables.services.get(name)
        if service is not None:
            asked = RebalanceStatus(state=RebalanceState.RUNNING)
            self.world.apply(Update(msgspec.structs.replace(service, rebalance_status=asked)))

    @rule(name=st.sampled_from(NODES), zone=st.sampled_from(["east", "west", "north"]))
    def label(self, name: str, zone: str) -> None:
        if name in self.world.tables.nodes:
            self.world.respec_node(name, labels={"zone": zone})

    @rule(
        name=st.sampled_from(SERVICES),
        mode=st.sampled_from([ServiceMode.REPLICATED, ServiceMode.GLOBAL]),
        replicas=st.integers(0, 5),
        task=tasks_specs,
        update=updates,
        endpoint=endpoints,
        priority=st.sampled_from([0, 0, 5]),
        rebalance=st.booleans(),
    )
    def create(self, name: str, mode: ServiceMode, **spec: Any) -> None:
        if name not in self.world.tables.services:
            self.world.service(name, mode=mode, **spec)

    @rule(name=st.sampled_from(SERVICES), replicas=st.integers(0, 6))
    def scale(self, name: str, replicas: int) -> None:
        if name in self.world.tables.services:
            self.world.respec(name, replicas=replicas)

    @rule(name=st.sampled_from(SERVICES), task=tasks_specs, update=updates, endpoint=endpoints)
    def update(self, name: str, **changes: Any) -> None:
        if name in self.world.tables.services:
            self.world.respec(name, **changes)

    @rule(name=st.sampled_from(SERVICES), stopped=st.booleans())
    def stop_or_start(self, name: str, stopped: bool) -> None:
        if name in self.world.tables.services:
            self.world.respec(name, stopped=stopped)

    @rule(name=st.sampled_from(SERVICES[1:]), condition=st.sampled_from([STARTED, HEALTHY]), count=st.integers(0, 2))
    def depend(self, name: str, condition: DependencyCondition, count: int) -> None:
        """On services before it: circles are refused."""
        if name in self.world.tables.services:
            on = SERVICES[: SERVICES.index(name)][:count]
            self.world.respec(name, depends_on=tuple(ServiceDependency(service=s, condition=condition) for s in on))

    @rule(name=st.sampled_from(SERVICES))
    def roll_back(self, name: str) -> None:
        service = self.world.tables.services.get(name)
        if service is not None and service.previous_spec is not None:
            back = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at=self.world.now)
            self.world.try_apply(
                Update(msgspec.structs.replace(service, spec=service.previous_spec, update_status=back))
            )

    @rule(name=st.sampled_from(SERVICES))
    def resume(self, name: str) -> None:
        service = self.world.tables.services.get(name)
        if service is not None and is_held(service):
            again = UpdateStatus(state=UpdateState.UPDATING, started_at=self.world.now)
            self.world.apply(Update(msgspec.structs.replace(service, update_status=again)))

    @rule(pick=anything)
    def restart_task(self, pick: int) -> None:
        tables = self.world.tables
        present = [task for task in tables.tasks.values() if task.service_id in tables.services]
        wanted = [task for task in present if task.desired_state <= TaskState.RUNNING]
        if wanted:
            task = wanted[pick % len(wanted)]
            self.world.apply(Update(msgspec.structs.replace(task, restart_requested=task.restart_requested + 1)))

    @rule(pick=anything)
    def remove_task(self, pick: int) -> None:
        tasks = list(self.world.tables.tasks.values())
        if tasks:
            task = tasks[pick % len(tasks)]
            has_ended = task.status.state.is_terminal or task.status.state < TaskState.ASSIGNED
            self.world.apply(Delete(Kind.TASK, task.id) if has_ended else SetDesired(task.id, TaskState.REMOVE))

    @rule(name=st.sampled_from(SERVICES))
    def remove_service(self, name: str) -> None:
        if name in self.world.tables.services:
            self.world.remove(self.world.tables.services[name])

    # ---- agents and faults

    @rule(only=st.sets(st.sampled_from(NODES), min_size=1))
    def agents(self, only: set[str]) -> None:
        self.world.agents_step(only=only)

    @rule(pick=anything)
    def fail(self, pick: int) -> None:
        """A task ends by itself, or cannot be prepared."""
        live = [
            task
            for task in self.world.tables.tasks.values()
            if TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
        ]
        if live:
            task = live[pick % len(live)]
            starting = task.status.state < TaskState.STARTING
            self.world.report(task, TaskState.REJECTED if starting else TaskState.FAILED)

    @rule(name=st.sampled_from(NODES), state=st.sampled_from([NodeState.DOWN, NodeState.READY, NodeState.SUSPECT]))
    def set_node_state(self, name: str, state: NodeState) -> None:
        if name in self.world.tables.nodes:
            self.world.node_state(name, state)

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    # ---- the leader

    @rule()
    def plan(self) -> None:
        self.world.plan_all()
        again = self.world.plan_again()
        # What a new leader would still do is only what the clock alone makes due.
        assert again.changes == (), again.changes

    @rule(pick=anything)
    def plan_interrupted(self, pick: int) -> None:
        """The leader dies with a part of its plan committed; the next one starts from nothing."""
        world = self.world
        changes = world.plan(commit=False).changes
        if changes:
            world.apply(*changes[: pick % (len(changes) + 1)])
        world.dirty, world.wakes, world.ledger = everything(), {}, Ledger.of(world.tables)

    @invariant()
    def holds(self) -> None:
        check_invariants(self.world)

    @precondition(lambda self: self.world.tables.nodes)
    @rule()
    def heal(self) -> None:
        """Faults stop: everything that was asked for comes about."""
        world = self.world
        for name in NODES:
            if name not in world.tables.nodes:
                world.node(name, memory=64 * GIB, gpus=GPUS)
            world.node_state(name, NodeState.READY)
            world.respec_node(name, labels={"zone": "east"}, availability=Availability.ACTIVE, taints=())
        world.settle(3600)
        check_converged(world)


Cluster.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCluster = Cluster.TestCase
