"""What people do with networks: they come and go while services and plain containers join and leave them.

Half of the networks have IPv6 too, some have chosen subnets with a part for static addresses. A network is often
removed while somebody makes a service on it, or attaches a container to it: one of the two is refused. What must hold,
`checks.networks` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from pyswarm.v1 import control_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.errors import PyswarmError
from pyswarm_common.model import (
    ContainerSpec,
    EndpointSpec,
    FailureAction,
    Network,
    NetworkAttachmentSpec,
    NetworkSpec,
    RestartPolicy,
    Service,
    ServiceSpec,
    SessionAffinity,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
)
from pyswarm_simulator.cluster import SimCluster
from pyswarm_simulator.host import Host
from pyswarm_worker.core.plain import Wanted

Ask = Callable[[str, object, float], Awaitable[object]]

PREFIX = "n"
_PATIENCE_S = 6.0
_IMAGE = "docker.io/library/app:1"
_MOST_REPLICAS = 3
_MOST_CONTAINERS = 2
"""Plain ones, on a host."""


class NetworkLoad:
    """One client that never lets networks be."""

    def __init__(self, cluster: SimCluster, ask: Ask) -> None:
        self._cluster, self._rng, self._ask = cluster, cluster.world.rng, ask
        self._made = 0
        self._asked: set[asyncio.Task[object]] = set()
        """Of agents, whose loops are not ours."""

    async def run(self) -> None:
        """Until cancelled."""
        changes = {
            self._create_network: 3,
            self._create: 4,
            self._scale: 2,
            self._move: 2,
            self._allow: 2,
            self._remove: 2,
            self._remove_network: 2,
            self._attach: 3,
            self._leave: 2,
        }
        while True:
            await self._rng.choices(tuple(changes), tuple(changes.values()))[0]()
            await asyncio.sleep(self._rng.expovariate(1 / self._cluster.profile.change_every))

    def _services(self) -> list[Service]:
        found = self._cluster.stores.content.services.values()
        return [service for service in found if service.spec.name.startswith(PREFIX)]

    def _networks(self) -> list[Network]:
        found = self._cluster.stores.networks.all.values()
        return [network for network in found if network.spec.name.startswith(PREFIX)]

    # -- networks ------------------------------------------------------------------------------------------------------

    async def _create_network(self) -> None:
        if len(self._networks()) < self._cluster.profile.networks:
            self._made += 1
            spec = _network_spec(self._made, is_dual=self._rng.random() < 0.5, is_chosen=self._rng.random() < 0.6)
            request = control_pb2.CreateNetworkRequest(spec=to_proto(spec))
            await self._ask("CreateNetwork", request.SerializeToString(), _PATIENCE_S)

    async def _remove_network(self) -> None:
        """Once its services are gone; while somebody else comes to it."""
        if not self._networks():
            return
        network = self._rng.choice(self._networks())
        for service in self._services():
            if any(wanted.target == network.id for wanted in service.spec.task.networks):
                await self._remove_service(service)
        request = control_pb2.RemoveNetworkRequest(network=network.id)
        others = [self._create_on((network,)) for _ in range(self._rng.choice((0, 1, 1)))]
        if self._rng.random() < 0.5:
            await self._attach_to(network)
        if self._rng.random() < 0.5:
            await asyncio.sleep(self._rng.uniform(0, 1.0))
        await asyncio.gather(self._ask("RemoveNetwork", request.SerializeToString(), _PATIENCE_S), *others)

    # -- services ------------------------------------------------------------------------------------------------------

    async def _create(self) -> None:
        networks = self._networks()
        if networks:
            count = min(len(networks), self._rng.choice((1, 1, 2)))
            await self._create_on(tuple(self._rng.sample(networks, count)))

    async def _create_on(self, networks: tuple[Network, ...]) -> None:
        if len(self._services()) >= self._cluster.profile.network_services:
            return
        self._made += 1
        rng = self._rng
        static = self._made % 3 if self._made % 3 != 2 else None
        spec = ServiceSpec(
            name=f"{PREFIX}{self._made}",
            replicas=rng.randrange(1, _MOST_REPLICAS + 1),
            task=TaskSpec(
                container=ContainerSpec(image=_IMAGE, stop_grace_period_s=1.0),
                restart=RestartPolicy(delay_s=0.5),
                networks=tuple(_place(network, static) for network in networks),
            ),
            update=UpdateConfig(
                parallelism=rng.choice((0, 1)),
                order=rng.choice((UpdateOrder.STOP_FIRST, UpdateOrder.STOP_FIRST, UpdateOrder.START_FIRST)),
                monitor_s=0.5,
                failure_action=FailureAction.CONTINUE,
            ),
            endpoint=EndpointSpec(session_affinity=rng.choice(tuple(SessionAffinity)), allow_from=self._some_names()),
        )
        request = control_pb2.CreateServiceRequest(spec=to_proto(spec))
        await self._ask("CreateService", request.SerializeToString(), _PATIENCE_S)

    def _some_names(self) -> tuple[str, ...]:
        names = [service.spec.name for service in self._services()]
        return tuple(self._rng.sample(names, min(len(names), self._rng.choice((0, 0, 1, 2)))))

    async def _scale(self) -> None:
        if self._services():
            service = self._rng.choice(self._services())
            await self._respecify(service, replace(service.spec, replicas=self._rng.randrange(0, _MOST_REPLICAS + 1)))

    async def _move(self) -> None:
        """To another network, or to one more."""
        if self._services() and self._networks():
            service, network = self._rng.choice(self._services()), self._rng.choice(self._networks())
            kept = service.spec.task.networks if self._rng.random() < 0.5 else ()
            others = tuple(one for one in kept if one.target != network.id)
            task = replace(service.spec.task, networks=(*others, NetworkAttachmentSpec(target=network.id)))
            await self._respecify(service, replace(service.spec, task=task))

    async def _allow(self) -> None:
        if self._services():
            service = self._rng.choice(self._services())
            endpoint = replace(service.spec.endpoint, allow_from=self._some_names())
            await self._respecify(service, replace(service.spec, endpoint=endpoint))

    async def _respecify(self, service: Service, spec: ServiceSpec) -> None:
        request = control_pb2.UpdateServiceRequest(
            service_id=service.id, version=service.meta.version, spec=to_proto(spec)
        )
        await self._ask("UpdateService", request.SerializeToString(), _PATIENCE_S)

    async def _remove(self) -> None:
        if self._services():
            await self._remove_service(self._rng.choice(self._services()))

    async def _remove_service(self, service: Service) -> None:
        request = control_pb2.RemoveServiceRequest(service=service.id)
        await self._ask("RemoveService", request.SerializeToString(), _PATIENCE_S)

    # -- plain containers ----------------------------------------------------------------------------------------------

    async def _attach(self) -> None:
        if self._networks():
            await self._attach_to(self._rng.choice(self._networks()))

    async def _attach_to(self, network: Network) -> None:
        """A new container, or another network for one that is there."""
        hosts = self._hosts()
        if not hosts:
            return
        host = self._rng.choice(hosts)
        assert host.agent is not None
        known = list(host.agent.plain.container_ids)
        wanted = Wanted(network=network.id, aliases=("it",))
        if known and self._rng.random() < 0.4:
            self._spawn(host, "connect", host.agent.plain.connect(self._rng.choice(known), wanted))
        elif len(known) < _MOST_CONTAINERS:
            self._made += 1
            name = f"plain{self._made}"
            self._spawn(host, "attach", host.agent.plain.attach(f"{host.name}-{name}", name, (wanted,)))

    async def _leave(self) -> None:
        """A container goes, or is taken off one of its networks."""
        hosts = [host for host in self._hosts() if host.agent is not None and host.agent.plain.container_ids]
        if not hosts:
            return
        host = self._rng.choice(hosts)
        assert host.agent is not None
        record, _ = self._rng.choice(host.agent.plain.list())
        if record.places and self._rng.random() < 0.5:
            network_id = self._rng.choice(record.places).network_id
            self._spawn(host, "disconnect", host.agent.plain.disconnect(record.container_id, network_id))
        else:
            self._spawn(host, "detach", host.agent.plain.detach(record.container_id))

    def _hosts(self) -> list[Host]:
        return [host for host in self._cluster.hosts.values() if host.is_up and host.is_agent_up and host.agent]

    def _spawn(self, host: Host, what: str, asked: Awaitable[object]) -> None:
        """On the agent's loop. Its process may die before it answers: nobody waits."""
        assert host.agent_loop is not None
        task = host.agent_loop.spawn(self._asked_of(host, what, asked))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _asked_of(self, host: Host, what: str, asked: Awaitable[object]) -> object:
        try:
            await asked
        except PyswarmError as refusal:
            self._cluster.note(f"{what} on {host.name} refused: {refusal}")
            return refusal
        self._cluster.note(f"{what} on {host.name} done")
        return None


def _network_spec(number: int, *, is_dual: bool, is_chosen: bool) -> NetworkSpec:
    name = f"{PREFIX}et{number}"
    if not is_chosen:
        return NetworkSpec(name=name, driver="overlay", attachable=True)
    place = number % 200
    ipv6 = (f"fd98:{place:x}::/64",) if is_dual else ()
    return NetworkSpec(
        name=name,
        driver="overlay",
        attachable=True,
        subnets=(f"10.98.{place}.0/26", *ipv6),
        ip_ranges=(f"10.98.{place}.0/27",),
        ipv6=is_dual,
    )


def _place(network: Network, static: int | None) -> NetworkAttachmentSpec:
    """On the network, with the first or second eight of its static addresses, if it has those."""
    if static is None or not network.spec.ip_ranges:
        return NetworkAttachmentSpec(target=network.id)
    first, _, number = network.spec.subnets[0].partition("/")[0].rpartition(".")
    low = int(number) + 40 + 8 * static
    return NetworkAttachmentSpec(
        target=network.id,
        addresses=(f"{first}.{low}-{first}.{low + 6}",),
        virtual_addresses=(f"{first}.{low + 7}",),
    )
