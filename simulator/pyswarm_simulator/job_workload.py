"""What people do with jobs: replicated, global, and cron services, run again, stopped, started and removed.

Beside the workload's own services, and only where the profile asks for it (`jobs`). The containers of these services
end by themselves after a while, sometimes badly. What must hold of them is in `checks.jobs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.model import (
    ContainerSpec,
    CronSpec,
    JobSpec,
    OverlapPolicy,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from pyswarm_simulator.cluster import SimCluster
from pyswarm_simulator.machine import FINISHES

Ask = Callable[[str, object, float], Awaitable[object]]

PREFIX = "j"
_PATIENCE_S = 6.0
_IMAGE = "docker.io/library/app:1"


class JobLoad:
    """One client that looks after jobs."""

    def __init__(self, cluster: SimCluster, ask: Ask) -> None:
        self._cluster, self._rng, self._ask = cluster, cluster.world.rng, ask
        self._made = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            choices = (self._create, self._force, self._run_now, self._stop_or_start, self._remove)
            await self._rng.choices(choices, (4, 2, 2, 1, 1))[0]()
            await asyncio.sleep(self._rng.expovariate(1 / self._cluster.profile.change_every))

    def _services(self) -> list[Service]:
        found = self._cluster.stores.content.services.values()
        return [service for service in found if service.spec.name.startswith(PREFIX)]

    async def _create(self) -> None:
        if len(self._services()) >= self._cluster.profile.jobs:
            return
        self._made += 1
        request = control_pb2.CreateServiceRequest(spec=to_proto(self._spec()))
        await self._ask("CreateService", request.SerializeToString(), _PATIENCE_S)

    def _spec(self) -> ServiceSpec:
        rng = self._rng
        mode = rng.choice(
            (ServiceMode.REPLICATED_JOB, ServiceMode.REPLICATED_JOB, ServiceMode.CRON, ServiceMode.GLOBAL_JOB)
        )
        total = rng.randrange(1, 7)
        container = ContainerSpec(
            image=_IMAGE, env=(f"{FINISHES}={rng.uniform(0.1, 1.5):.3f}",), stop_grace_period_s=1.0
        )
        spec = ServiceSpec(
            name=f"{PREFIX}{self._made}",
            mode=mode,
            task=TaskSpec(
                container=container, restart=RestartPolicy(condition=RestartCondition.ON_FAILURE, delay_s=0.3)
            ),
        )
        if mode is ServiceMode.CRON:
            cron = CronSpec(
                schedule=f"@every {rng.choice((2, 3, 5))}s",
                overlap=rng.choice(tuple(OverlapPolicy)),
                starting_deadline_s=rng.choice((0.0, 5.0)),
                history_limit=5,
            )
            return replace(spec, cron=cron, job=JobSpec(total_completions=rng.choice((1, 1, 2))))
        if mode is ServiceMode.REPLICATED_JOB:
            return replace(spec, job=JobSpec(max_concurrent=rng.randrange(1, 4), total_completions=total))
        return spec

    async def _force(self) -> None:
        if self._services():
            service = self._rng.choice(self._services())
            task = replace(service.spec.task, force_update=service.spec.task.force_update + 1)
            await self._respecify(service, replace(service.spec, task=task))

    async def _stop_or_start(self) -> None:
        if self._services():
            service = self._rng.choice(self._services())
            await self._respecify(service, replace(service.spec, stopped=not service.spec.stopped))

    async def _run_now(self) -> None:
        if self._services():
            await self._ask("RunService", self._rng.choice(self._services()).id, _PATIENCE_S)

    async def _remove(self) -> None:
        if self._services():
            request = control_pb2.RemoveServiceRequest(service=self._rng.choice(self._services()).id)
            await self._ask("RemoveService", request.SerializeToString(), _PATIENCE_S)

    async def _respecify(self, service: Service, spec: ServiceSpec) -> None:
        request = control_pb2.UpdateServiceRequest(
            service_id=service.id, version=service.meta.version, spec=to_proto(spec)
        )
        await self._ask("UpdateService", request.SerializeToString(), _PATIENCE_S)
