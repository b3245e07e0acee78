"""A published port of this host: whether its rules are as wanted, and where they lead a client. Changes nothing.

Both ends of such a way are here: the node that the client comes to (`look`), and the node of the backend, which leads
the client on by rules of its own (`leads_on`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from pyswarm_overlay.audit.host import PublishedAudit
from pyswarm_overlay.core.port_rules import Listener
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel.ruleset import Scratch
from pyswarm_overlay.network import Devices, Network
from pyswarm_overlay.networks import Networks
from pyswarm_overlay.publisher import Publisher
from pyswarm_overlay.reports import FROM_OUTSIDE, Hop, Source, Step
from pyswarm_overlay.verified import HOST_KEY

from .near import tunnel, tunnel_step

_MAX_HOPS = 32
_MAX_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Door:
    """One address that a port is published at, and the backends behind it: (address led to, endpoint id)."""

    where: str
    targets: tuple[tuple[str, str], ...]
    is_open: bool = True


class PublishedSide:
    """Owned by `OverlayHost`."""

    def __init__(self, ground: Ground, networks: Networks, publisher: Publisher, scratch: Scratch) -> None:
        self._ground = ground
        self._networks = networks
        self._publisher = publisher
        self._audit = PublishedAudit(ground, publisher, scratch)

    async def look(self, port: int, protocol: str) -> Source:
        """Where a client from outside is led that comes to this node's port."""
        steps = [Step("warning", "rules", problem) for problem in (await self._audit.observe(HOST_KEY))[:_MAX_PROBLEMS]]
        doors = self._doors(port, protocol)
        if not doors:
            return Source((*steps, Step("stop", "port", f"{protocol} port {port} is not published on this node")), ())
        hops: list[Hop] = []
        for door in doors:
            steps.append(_step_of(door, port, protocol))
            for address, owner in door.targets[:_MAX_HOPS] if door.is_open else ():
                step, hop = await self._hop(address, owner, self._target_port(port, protocol, owner))
                steps.append(step)
                hops += [hop] if hop is not None else []
        return Source(tuple(steps), tuple(hops))

    def leads_on(self, endpoint_id: str, port: int, protocol: str) -> Step:
        """Whether this node leads to its task what comes to the port, also through other nodes."""
        owners = {owner for door in self._doors(port, protocol) for _address, owner in door.targets}
        if endpoint_id in owners:
            return Step("ok", "port", f"this node leads {protocol} port {port} to it")
        return Step("stop", "port", f"this node does not lead {protocol} port {port} to it")

    def _doors(self, port: int, protocol: str) -> list[Door]:
        listeners = (one for one in self._publisher.listeners() if (one.protocol, one.port) == (protocol, port))
        found = [
            Door(_where(one.host_ip), tuple(_by_owner(one)), one.answers_here or not one.targets) for one in listeners
        ]
        for relayed in self._publisher.relayed.ports if protocol == "tcp" else ():
            if relayed.port == port:
                backends = tuple((target.address, target.owner) for target in relayed.targets)
                found.append(Door(f"{_where(relayed.host_ip)} (PROXY protocol)", backends))
        return found

    def _target_port(self, port: int, protocol: str, owner: str) -> int:
        """The container's port."""
        for one in self._publisher.ingress.ports:
            if (one.protocol, one.published_port) == (protocol, port):
                return one.target_port
        for listener in self._publisher.listeners():
            for target in listener.targets:
                if (listener.protocol, listener.port, target.owner) == (protocol, port, owner):
                    return target.port
        return port

    async def _hop(self, address: str, owner: str, port: int) -> tuple[Step, Hop | None]:
        network = self._networks.ingress()
        record = None if network is None else network.state.endpoints.get(owner)
        hop = Hop("", FROM_OUTSIDE, FROM_OUTSIDE, address, "", owner, port)
        if network is None or record is None or record.node_address == self._ground.config.node_address:
            return Step("ok", "backend", f"{address} port {port} is on this node"), hop
        way = await self._tunnel(network, address, record.node_address)
        if way.outcome == "stop":
            return way, None
        return way, Hop("", FROM_OUTSIDE, FROM_OUTSIDE, address, record.node_address, owner, port)

    async def _tunnel(self, network: Network, address: str, node_address: str) -> Step:
        if not isinstance(network.devices, Devices):
            return Step("stop", "tunnel", f"this node has no interface on network {network.state.table.name}")
        async with network.lock:
            observed = await self._ground.threads.run(partial(tunnel, network.devices, address))
        return tunnel_step(address, node_address, observed)


def _where(host_ip: str) -> str:
    return host_ip or "every address"


def _by_owner(listener: Listener) -> Iterator[tuple[str, str]]:
    """One address of each backend: of a task of both families the first."""
    found: dict[str, str] = {}
    for target in listener.targets:
        found.setdefault(target.owner, target.address)
    return ((address, owner) for owner, address in found.items())


def _step_of(door: Door, port: int, protocol: str) -> Step:
    what = f"{protocol} port {port} at {door.where}"
    if not door.is_open:
        return Step("stop", "port", f"{what} is another program's, or this node does not have that address")
    if not door.targets:
        return Step("stop", "port", f"{what} refuses: there is no task that it may lead to from here")
    return Step("ok", "port", f"{what} leads to {_listed(address for address, _owner in door.targets)}")


def _listed(addresses: Iterable[str]) -> str:
    """Tasks of one node have one address there."""
    return ", ".join(dict.fromkeys(addresses))
