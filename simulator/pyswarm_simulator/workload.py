"""What people do with the cluster: services come, change and go; nodes are drained and taken back.

The workload knows what it asked for and was told; what the cluster must come to is decided by what is committed, since
an answer may be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.errors import PyswarmError
from pyswarm_common.model import (
    Availability,
    ContainerSpec,
    EndpointSpec,
    FailureAction,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeRole,
    PortConfig,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
)
from pyswarm_simulator.client import Client, RegisterClient
from pyswarm_simulator.cluster import SimCluster
from pyswarm_simulator.job_workload import JobLoad
from pyswarm_simulator.linearizability import Operation
from pyswarm_simulator.network_workload import NetworkLoad
from pyswarm_simulator.orchestration_workload import OrchestrationLoad
from pyswarm_simulator.rollout_workload import RolloutLoad
from pyswarm_simulator.switchboard import Party
from pyswarm_simulator.world import new_loop

PATIENCE_S = 6.0
IMAGES = ("docker.io/library/app:1", "docker.io/library/app:2")
_CLIENTS = 4
SUBNETS = ("10.99.0.0/20", "fd99::/64")


class Workload:
    """One run's clients. They are on a host of their own, which nothing befalls."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster, self._world, self._profile = cluster, cluster.world, cluster.profile
        self._loop = new_loop(cluster.world, "clients")
        self._client = Client(cluster.world, cluster.board, Party("clients", self._loop))
        self.history: list[Operation] = []
        self._registers: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._made = 0

    def addresses(self) -> Sequence[str]:
        """Where managers may listen."""
        content = self._cluster.stores.content
        managers = [n.manager_status.address for n in content.nodes.values() if n.manager_status is not None]
        return managers or [host.manager_address for host in self._cluster.hosts.values() if host.raft_disk is not None]

    # -- the beginning and the end -------------------------------------------------------------------------------------

    def ask(self, method: str, question: object, patience_s: float = PATIENCE_S) -> asyncio.Task[object]:
        """Ask the leader for something, from outside of any coroutine."""
        return self._loop.spawn(self._asked(method, question, patience_s))

    async def _asked(self, method: str, question: object, patience_s: float) -> object:
        try:
            answer = await self._client.until_led(self.addresses(), method, question, patience_s)
        except PyswarmError as refusal:
            self._cluster.note(f"{method} refused: {refusal}")
            return refusal
        self._cluster.note(f"{method} done")
        return answer

    def start(self) -> None:
        """Make the registers, then let everybody do what they do."""
        self._tasks.append(self._loop.spawn(self._begin()))

    def stop(self) -> None:
        """No more from now on."""
        for task in self._tasks:
            task.cancel()

    def kill(self) -> None:
        """The run is over."""
        self._loop.kill()

    async def _begin(self) -> None:
        for number in range(self._profile.registers):
            spec = ServiceSpec(name=f"register{number}", replicas=0, task=_task_spec())
            service_id = await self._asked("CreateService", _creation(spec), 30.0)
            if isinstance(service_id, str):
                self._registers.append(service_id)
        of_net = NetworkSpec(
            name="net0", driver="overlay", subnets=SUBNETS, auxiliary_addresses={"router": "10.99.0.4"}
        )
        network = control_pb2.CreateNetworkRequest(spec=to_proto(of_net))
        await self._asked("CreateNetwork", network.SerializeToString(), 30.0)
        for number in range(_CLIENTS if self._registers else 0):
            register = RegisterClient(self._client, self._world, number, self.history)
            pause_s = self._profile.register_every * _CLIENTS
            self._tasks.append(self._loop.spawn(register.run(self._registers, self.addresses, pause_s)))
        self._tasks.append(self._loop.spawn(self._change_things()))
        if self._profile.jobs:
            self._tasks.append(self._loop.spawn(JobLoad(self._cluster, self._asked).run()))
        if self._profile.rollouts:
            self._tasks.append(self._loop.spawn(RolloutLoad(self._cluster, self._asked).run()))
        if self._profile.orchestration:
            self._tasks.append(self._loop.spawn(OrchestrationLoad(self._cluster, self._asked).run()))
        if self._profile.networks:
            self._tasks.append(self._loop.spawn(NetworkLoad(self._cluster, self._asked).run()))

    # -- changes -------------------------------------------------------------------------------------------------------

    async def _change_things(self) -> None:
        rng = self._world.rng
        while True:
            change = rng.choices(
                (self._create, self._scale, self._update, self._remove, self._drain), (4, 3, 3, 1.5, 1.5)
            )[0]
            await change()
            await asyncio.sleep(rng.expovariate(1 / self._profile.change_every))

    def _services(self) -> list[Service]:
        services = self._cluster.stores.content.services.values()
        return [service for service in services if service.id not in self._registers and service.spec.name[0] == "s"]

    async def _create(self) -> None:
        if len(self._services()) >= self._profile.services:
            return
        self._made += 1
        rng = self._world.rng
        order = rng.choice((UpdateOrder.STOP_FIRST, UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST))
        is_global = rng.random() < 0.2
        is_static = not is_global and self._made % 4 == 0
        ports = (PortConfig(target_port=80),) if rng.random() < 0.4 else ()
        spec = ServiceSpec(
            name=f"s{self._made}",
            mode=ServiceMode.GLOBAL if is_global else ServiceMode.REPLICATED,
            replicas=None if is_global else rng.randrange(1, 6),
            task=_task_spec(
                networks=("net0",) if rng.random() < 0.6 else (), addresses=_addresses(self._made) if is_static else ()
            ),
            update=UpdateConfig(
                parallelism=rng.choice((0, 1, 2)), order=order, monitor_s=0.5, failure_action=FailureAction.CONTINUE
            ),
            endpoint=EndpointSpec(ports=ports),
        )
        await self._asked("CreateService", _creation(spec), PATIENCE_S)

    async def _scale(self) -> None:
        replicated = [s for s in self._services() if s.spec.mode is ServiceMode.REPLICATED]
        if replicated:
            service = self._world.rng.choice(replicated)
            await self._respecify(service, replace(service.spec, replicas=self._world.rng.randrange(0, 7)))

    async def _update(self) -> None:
        if self._services():
            rng = self._world.rng
            service = rng.choice(self._services())
            self._made += 1
            container = replace(service.spec.task.container, image=rng.choice(IMAGES), env=(f"V={self._made}",))
            task = replace(service.spec.task, container=container)
            await self._respecify(service, replace(service.spec, task=task))

    async def _respecify(self, service: Service, spec: ServiceSpec) -> None:
        request = control_pb2.UpdateServiceRequest(
            service_id=service.id, version=service.meta.version, spec=to_proto(spec)
        )
        await self._asked("UpdateService", request.SerializeToString(), PATIENCE_S)

    async def _remove(self) -> None:
        if self._services():
            service = self._world.rng.choice(self._services())
            request = control_pb2.RemoveServiceRequest(service=service.id)
            await self._asked("RemoveService", request.SerializeToString(), PATIENCE_S)

    async def _drain(self) -> None:
        nodes = list(self._cluster.stores.content.nodes.values())
        if nodes:
            node = self._world.rng.choice(nodes)
            is_drained = node.spec.availability is Availability.DRAIN
            spec = replace(node.spec, availability=Availability.ACTIVE if is_drained else Availability.DRAIN)
            await self.update_node(node.id, spec.role, spec.availability)

    async def update_node(self, node_id: str, role: NodeRole, availability: Availability) -> None:
        """Give a node another role or availability."""
        node = self._cluster.stores.content.nodes.get(node_id)
        if node is None:
            return
        spec = replace(node.spec, role=role, availability=availability)
        request = control_pb2.UpdateNodeRequest(node_id=node_id, version=node.meta.version, spec=to_proto(spec))
        await self._asked("UpdateNode", request.SerializeToString(), PATIENCE_S)

    def spawn_update_node(self, node_id: str, role: NodeRole, availability: Availability) -> None:
        """The same, from outside of any coroutine."""
        self._loop.spawn(self.update_node(node_id, role, availability))


def _addresses(number: int) -> tuple[str, ...]:
    """Eight of the part of the network that chosen addresses never come to; the service's own is the last."""
    first = f"10.99.{8 + number // 32 % 8}."
    return f"{first}{number % 32 * 8}-{first}{number % 32 * 8 + 6}", f"{first}{number % 32 * 8 + 7}"


def _task_spec(networks: Sequence[str] = (), addresses: tuple[str, ...] = ()) -> TaskSpec:
    return TaskSpec(
        container=ContainerSpec(image=IMAGES[0], stop_grace_period_s=1.0),
        restart=RestartPolicy(delay_s=0.5),
        networks=tuple(
            NetworkAttachmentSpec(target=name, addresses=addresses[:1], virtual_addresses=addresses[1:])
            for name in networks
        ),
    )


def _creation(spec: ServiceSpec) -> bytes:
    return control_pb2.CreateServiceRequest(spec=to_proto(spec)).SerializeToString()
