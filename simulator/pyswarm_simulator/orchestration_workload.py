"""What people do with the finer parts of orchestration: services that scale with their use, that follow secrets and
configs, that take the place of others, that want certain devices, that are spread anew when nodes return; nodes that
are tainted, and drained with a deadline.

Beside the workload's own services, and only where the profile asks for it (`orchestration`). What must hold of them is
in `checks.autoscaling`, `checks.following` and `checks.scheduling`; what they must come to, in `checks.settled`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from pyswarm.v1 import control_pb2, secrets_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.model import (
    AutoscaleSpec,
    Availability,
    ContainerSpec,
    FailureAction,
    FileReference,
    FileSpec,
    GenericResource,
    Node,
    NodeSpec,
    Placement,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    Service,
    ServiceSpec,
    Taint,
    TaintEffect,
    TaskSpec,
    Toleration,
    UpdateConfig,
    UpdateOrder,
)
from pyswarm_simulator.cluster import SimCluster

Ask = Callable[[str, object, float], Awaitable[object]]

PREFIX = "o"
SECRETS = ("key0", "key1")
CONFIGS = ("conf0",)
MIB, GIB = 1024**2, 1024**3
AIM_BYTES = 50 * MIB
"""What a task of an autoscaled service is to use: half of its limit."""
_PATIENCE_S = 6.0
_IMAGE = "docker.io/library/app:1"
_TAINT = "fenced"
_NO_RESOURCES = ResourceRequirements()


class OrchestrationLoad:
    """One client that looks after such services, and the use that is made of them."""

    def __init__(self, cluster: SimCluster, ask: Ask) -> None:
        self._cluster, self._rng, self._ask = cluster, cluster.world.rng, ask
        self._made = 0

    async def run(self) -> None:
        """Until cancelled."""
        await self._create_files()
        changes = (
            (self._create, 5),
            (self._use, 3),
            (self._update, 2),
            (self._rotate, 3),
            (self._roll_back, 1.5),
            (self._scale, 2),
            (self._taint, 1.5),
            (self._drain, 1.5),
            (self._remove, 1),
        )
        while True:
            change = self._rng.choices([change for change, _ in changes], [weight for _, weight in changes])[0]
            await change()
            await asyncio.sleep(self._rng.expovariate(1 / self._cluster.profile.change_every))

    def _services(self, kind: str = "") -> list[Service]:
        found = self._cluster.stores.content.services.values()
        return [service for service in found if service.spec.name.startswith(PREFIX + kind)]

    # -- secrets and configs -------------------------------------------------------------------------------------------

    async def _create_files(self) -> None:
        for name in SECRETS:
            message = secrets_pb2.CreateSecretRequest(spec=to_proto(FileSpec(name=name, data=b"1")))
            await self._ask("CreateSecret", message.SerializeToString(), 30.0)
        for name in CONFIGS:
            config = secrets_pb2.CreateConfigRequest(spec=to_proto(FileSpec(name=name, data=b"1")))
            await self._ask("CreateConfig", config.SerializeToString(), 30.0)

    async def _rotate(self) -> None:
        self._made += 1
        data = str(self._made).encode()
        name = self._rng.choice((*SECRETS, *CONFIGS))
        if name in SECRETS:
            message = secrets_pb2.RotateSecretRequest(secret=name, data=data)
            await self._ask("RotateSecret", message.SerializeToString(), _PATIENCE_S)
        else:
            config = secrets_pb2.RotateConfigRequest(config=name, data=data)
            await self._ask("RotateConfig", config.SerializeToString(), _PATIENCE_S)
        if self._rng.random() < 0.4:  # somebody does not like the new version
            await asyncio.sleep(self._rng.uniform(0.1, 1.0))
            await self._roll_back("f")

    # -- services ------------------------------------------------------------------------------------------------------

    async def _create(self) -> None:
        if len(self._services()) >= self._cluster.profile.orchestration:
            return
        self._made += 1
        makers = {
            "a": self._scaled,
            "f": self._following,
            "p": self._ranked,
            "g": self._equipped,
            "b": self._spread,
        }
        spec = makers[self._rng.choice(self._cluster.profile.orchestration_kinds)]()
        request = control_pb2.CreateServiceRequest(spec=to_proto(spec))
        await self._ask("CreateService", request.SerializeToString(), _PATIENCE_S)

    def _spec(self, kind: str, replicas: int, task: TaskSpec) -> ServiceSpec:
        rng = self._rng
        update = UpdateConfig(
            parallelism=rng.choice((0, 1, 2)),
            order=rng.choice((UpdateOrder.STOP_FIRST, UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST)),
            monitor_s=0.5,
            failure_action=rng.choice((FailureAction.CONTINUE, FailureAction.ROLLBACK)),
            max_failure_ratio=0.5,
        )
        return ServiceSpec(
            name=f"{PREFIX}{kind}{self._made}",
            replicas=replicas,
            task=replace(task, placement=self._placement()),
            update=update,
            rollback=UpdateConfig(parallelism=1, monitor_s=0.2, failure_action=FailureAction.CONTINUE),
        )

    def _placement(self) -> Placement:
        return Placement(tolerations=(Toleration(key=_TAINT),)) if self._rng.random() < 0.2 else Placement()

    def _scaled(self) -> ServiceSpec:
        most = self._rng.randrange(4, 8)
        scale = AutoscaleSpec(
            min_replicas=self._rng.randrange(1, 3),
            max_replicas=most,
            memory_percent=50,
            scale_down_window_s=12.0,
            scale_up_window_s=0.0,
        )
        task = _task(ResourceRequirements(limits=Resources(memory_bytes=2 * AIM_BYTES)))
        return replace(self._spec("a", self._rng.randrange(1, most), task), autoscale=scale)

    def _following(self) -> ServiceSpec:
        rng = self._rng
        secrets = rng.sample(SECRETS, rng.choice((1, 2)))
        configs = rng.sample(CONFIGS, rng.choice((0, 1)))
        task = _task()
        pins = rng.random() < 0.15
        container = replace(
            task.container,
            secrets=tuple(FileReference(name=name, pinned=pins) for name in secrets),
            configs=tuple(FileReference(name=name) for name in configs),
        )
        return self._spec("f", rng.randrange(1, 4), replace(task, container=container))

    def _ranked(self) -> ServiceSpec:
        """Big tasks: two have room on a node."""
        task = _task(ResourceRequirements(reservations=Resources(memory_bytes=7 * GIB)))
        spec = self._spec("p", self._rng.randrange(1, 6), task)
        return replace(spec, priority=self._rng.choice((0, 1, 1, 2)))

    def _equipped(self) -> ServiceSpec:
        wanted = GenericResource(kind="gpu", count=self._rng.choice((1, 1, 2)))
        task = _task(ResourceRequirements(reservations=Resources(generic=(wanted,))))
        return self._spec("g", self._rng.randrange(1, 6), task)

    def _spread(self) -> ServiceSpec:
        return replace(self._spec("b", self._rng.randrange(3, 8), _task()), rebalance=True)

    async def _use(self) -> None:
        """More or less is asked of a service from now on."""
        if scaled := self._services("a"):
            service = self._rng.choice(scaled)
            self._cluster.demands[service.id] = round(self._rng.uniform(0.1, 9) * AIM_BYTES)
            self._cluster.note(f"{service.spec.name} is used by {self._cluster.demands[service.id] / AIM_BYTES:.1f}")

    async def _update(self) -> None:
        if self._services():
            service = self._rng.choice(self._services())
            self._made += 1
            container = replace(service.spec.task.container, env=(f"V={self._made}",))
            await self._respecify(service, replace(service.spec, task=replace(service.spec.task, container=container)))

    async def _scale(self) -> None:
        if counted := [service for service in self._services() if service.spec.autoscale is None]:
            service = self._rng.choice(counted)
            # Never the same: that would change nothing but versions, as only the leader's loop does.
            number = self._rng.choice([n for n in range(7) if n != service.spec.replicas])
            await self._respecify(service, replace(service.spec, replicas=number))

    async def _roll_back(self, kind: str = "") -> None:
        if found := self._services(kind):
            service = self._rng.choice(found)
            request = control_pb2.UpdateServiceRequest(
                service_id=service.id, version=service.meta.version, rollback=True
            )
            await self._ask("UpdateService", request.SerializeToString(), _PATIENCE_S)

    async def _respecify(self, service: Service, spec: ServiceSpec) -> None:
        request = control_pb2.UpdateServiceRequest(
            service_id=service.id, version=service.meta.version, spec=to_proto(spec)
        )
        await self._ask("UpdateService", request.SerializeToString(), _PATIENCE_S)

    async def _remove(self) -> None:
        if self._services():
            request = control_pb2.RemoveServiceRequest(service=self._rng.choice(self._services()).id)
            await self._ask("RemoveService", request.SerializeToString(), _PATIENCE_S)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    async def _taint(self) -> None:
        """Fence a node, or let tasks come back to it."""
        if node := self._some_node():
            effects = (TaintEffect.NO_EXECUTE, TaintEffect.NO_EXECUTE, TaintEffect.NO_SCHEDULE)
            taints = () if node.spec.taints else (Taint(key=_TAINT, effect=self._rng.choice(effects)),)
            await self._respecify_node(node, replace(node.spec, taints=taints))

    async def _drain(self) -> None:
        """Most drains have a deadline here."""
        if node := self._some_node():
            is_drained = node.spec.availability is Availability.DRAIN
            availability = Availability.ACTIVE if is_drained else Availability.DRAIN
            deadline_s = self._rng.choice((0.0, 1.0, 2.0, 5.0))
            await self._respecify_node(node, replace(node.spec, availability=availability, drain_deadline_s=deadline_s))

    def _some_node(self) -> Node | None:
        nodes = list(self._cluster.stores.content.nodes.values())
        return self._rng.choice(nodes) if nodes else None

    async def _respecify_node(self, node: Node, spec: NodeSpec) -> None:
        request = control_pb2.UpdateNodeRequest(node_id=node.id, version=node.meta.version, spec=to_proto(spec))
        await self._ask("UpdateNode", request.SerializeToString(), _PATIENCE_S)


def _task(resources: ResourceRequirements = _NO_RESOURCES) -> TaskSpec:
    return TaskSpec(
        container=ContainerSpec(image=_IMAGE, stop_grace_period_s=1.0),
        restart=RestartPolicy(delay_s=0.3, max_delay_s=4.0),
        resources=resources,
    )
