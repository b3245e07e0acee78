"""What people do with services that exist: go back to earlier specs, stop and start them, restart and remove tasks,
have services wait for one another.

Beside the workload's own services, and only where the profile asks for it (`rollouts`). Some of their updates go back
by themselves when containers crash. What must hold in between is what holds of every service; that all of them come to
what they should be, `checks.convergence` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.model import (
    ContainerSpec,
    DependencyCondition,
    FailureAction,
    RestartPolicy,
    Service,
    ServiceDependency,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    UpdateConfig,
    UpdateOrder,
)
from pyswarm_simulator.cluster import SimCluster

Ask = Callable[[str, object, float], Awaitable[object]]

PREFIX = "v"
_PATIENCE_S = 6.0
_IMAGE = "docker.io/library/app:1"


class RolloutLoad:
    """One client that never lets services be."""

    def __init__(self, cluster: SimCluster, ask: Ask) -> None:
        self._cluster, self._rng, self._ask = cluster, cluster.world.rng, ask
        self._made = 0

    async def run(self) -> None:
        """Until cancelled."""
        changes = (self._create, self._update, self._roll_back, self._stop_or_start, self._restart, self._remove_task)
        while True:
            await self._rng.choices((*changes, self._remove), (4, 3, 3, 2, 3, 2, 1))[0]()
            await asyncio.sleep(self._rng.expovariate(1 / self._cluster.profile.change_every))

    def _services(self) -> list[Service]:
        found = self._cluster.stores.content.services.values()
        return [service for service in found if service.spec.name.startswith(PREFIX)]

    def _tasks(self) -> list[Task]:
        ids = {service.id for service in self._services()}
        return [task for task in self._cluster.stores.content.tasks.values() if task.service_id in ids]

    async def _create(self) -> None:
        others = self._services()
        if len(others) >= self._cluster.profile.rollouts:
            return
        self._made += 1
        rng = self._rng
        conditions = (DependencyCondition.STARTED, DependencyCondition.HEALTHY)
        awaited = rng.sample(others, min(len(others), rng.choice((0, 0, 1, 2))))
        spec = ServiceSpec(
            name=f"{PREFIX}{self._made}",
            replicas=rng.randrange(1, 5),
            task=TaskSpec(
                container=ContainerSpec(image=_IMAGE, stop_grace_period_s=1.0),
                restart=RestartPolicy(delay_s=0.3, max_delay_s=4.0),
            ),
            update=UpdateConfig(
                parallelism=rng.choice((0, 1, 2)),
                order=rng.choice(tuple(UpdateOrder)),
                monitor_s=0.5,
                failure_action=rng.choice((FailureAction.CONTINUE, FailureAction.ROLLBACK)),
                max_failure_ratio=0.5,
            ),
            rollback=UpdateConfig(parallelism=1, monitor_s=0.2, failure_action=FailureAction.CONTINUE),
            depends_on=tuple(ServiceDependency(service=s.spec.name, condition=rng.choice(conditions)) for s in awaited),
        )
        request = control_pb2.CreateServiceRequest(spec=to_proto(spec))
        await self._ask("CreateService", request.SerializeToString(), _PATIENCE_S)

    async def _update(self) -> None:
        if self._services():
            service = self._rng.choice(self._services())
            self._made += 1
            container = replace(service.spec.task.container, env=(f"V={self._made}",))
            task = replace(service.spec.task, container=container)
            await self._respecify(service, spec=replace(service.spec, task=task))

    async def _stop_or_start(self) -> None:
        if self._services():
            service = self._rng.choice(self._services())
            await self._respecify(service, spec=replace(service.spec, stopped=not service.spec.stopped))

    async def _roll_back(self) -> None:
        """To the spec before, or to any one that is kept."""
        if self._services():
            service = self._rng.choice(self._services())
            await self._respecify(service, to=self._rng.randrange(0, service.revision + 1))

    async def _respecify(self, service: Service, spec: ServiceSpec | None = None, to: int = 0) -> None:
        request = control_pb2.UpdateServiceRequest(service_id=service.id, version=service.meta.version)
        if spec is not None:
            request.spec.CopyFrom(to_proto(spec))
        else:
            request.rollback, request.rollback_to = not to, to
        await self._ask("UpdateService", request.SerializeToString(), _PATIENCE_S)

    async def _restart(self) -> None:
        wanted = [task for task in self._tasks() if task.desired_state <= TaskState.RUNNING]
        if wanted:
            request = control_pb2.RestartTaskRequest(task=self._rng.choice(wanted).id)
            await self._ask("RestartTask", request.SerializeToString(), _PATIENCE_S)

    async def _remove_task(self) -> None:
        if self._tasks():
            request = control_pb2.RemoveTaskRequest(task=self._rng.choice(self._tasks()).id, force=True)
            await self._ask("RemoveTask", request.SerializeToString(), _PATIENCE_S)

    async def _remove(self) -> None:
        if self._services():
            request = control_pb2.RemoveServiceRequest(service=self._rng.choice(self._services()).id)
            await self._ask("RemoveService", request.SerializeToString(), _PATIENCE_S)
