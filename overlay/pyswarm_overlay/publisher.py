"""Published ports of this host: who may have which, and the host's table that leads them to tasks.

The table follows from the ingress ports, the host-mode ports, the other nodes and the sandboxes that are up; it is
computed whole and replaced whole when it differs from what was last written, so callers that wait for one another share
one write. A port that somebody else has is left out, remembered, and tried again at the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_network

from pyswarm_common.errors import AlreadyExists, FailedPrecondition, Unavailable

from .core import host_rules, names
from .core.host_rules import HostRules
from .core.port_rules import Listener
from .core.published import (
    Surroundings,
    TargetKey,
    host_listener,
    ingress_listener,
    relay_wanted,
    target_keys,
    with_leaving,
)
from .core.returns import Peers, Returns, mark_of, peers_of, returns_of
from .core.rules import Command
from .core.tables import TableState
from .gateway import plain
from .ground import Ground
from .holder import NoSuchAddress, PortHolder, PortKey
from .kernel import flows
from .network import Network
from .records import IngressRecord
from .relay.wanted import Wanted
from .relays import Relays
from .types import HostPort, IngressPort, Sandbox

_INGRESS = "ingress"
_DATAGRAMS = "udp"


class Publisher:
    """Holds and programs the ports.

    `network` tells the ingress network. What is written follows from it and from what is kept here, whose changes are
    counted: a sandbox that has nothing to do with published ports costs no look at any other.
    """

    def __init__(self, ground: Ground, network: Callable[[], Network | None]) -> None:
        self._ground = ground
        self._network = network
        self._changes = 0
        self._synced: tuple[int, TableState | None] | None = None
        """The changes and the state of the ingress network that were brought about last."""
        self._ways_out: dict[str, tuple[str, ...]] = {}
        """Endpoint -> its addresses there, of the endpoints that are up here."""
        self._up: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        """Sandbox -> its endpoints, and its addresses on its way out."""
        self._published: frozenset[str] = frozenset()
        """The endpoints behind ingress ports."""
        self._lingering: dict[TargetKey, frozenset[str]] = {}
        """Targets that were withdrawn and whose backends still exist: their connections may finish."""
        self._holder = PortHolder()
        self._lock = asyncio.Lock()
        self._started = False
        self._programmed: HostRules | None = None
        self._host: dict[str, tuple[Listener, ...]] = {}
        self._conflicts: list[PortKey] = []
        self._elsewhere: list[PortKey] = []
        """Ports at addresses that this host does not have."""
        self._proxied: dict[str, tuple[HostPort, ...]] = {}
        """Host-mode ports that speak the PROXY protocol, by sandbox."""
        self._sandbox_addresses: dict[str, tuple[str, ...]] = {}
        self._relays = Relays(ground.config.run_dir)
        self._relayed = Wanted()
        self._relay_problem = ""
        self.ingress = IngressRecord()

    # -- who has which port ------------------------------------------------------------------------------------------

    def reserve(self, sandbox: Sandbox) -> None:
        """All host-mode ports of a sandbox, or none of them."""
        owner = f"sandbox {sandbox.sandbox_id}"
        keys = [_key(port) for port in sandbox.host_ports]
        self._holder.keep(owner, keys)
        failed = f"driver failed programming external connectivity on endpoint {sandbox.sandbox_id}: "
        for key in keys:
            try:
                held = self._holder.hold(key, owner)
            except NoSuchAddress:
                self._holder.keep(owner, ())
                raise FailedPrecondition(
                    f"{failed}listen {key.protocol} {key}: bind: cannot assign requested address"
                ) from None
            if not held:
                self._holder.keep(owner, ())
                raise AlreadyExists(f"{failed}Bind for {key} failed: port is already allocated")

    def open(self, sandbox: Sandbox, addresses: tuple[str, ...]) -> None:
        """A sandbox is up. `addresses`: of its way out."""
        sandbox_id, plainly = sandbox.sandbox_id, tuple(map(plain, addresses))
        self._forget(sandbox_id)
        if not addresses:
            return
        endpoints = tuple(attachment.endpoint_id for attachment in sandbox.attachments)
        self._up[sandbox_id] = endpoints, plainly
        self._ways_out.update(dict.fromkeys(endpoints, plainly))
        if sandbox.host_ports:
            self._open_host_ports(sandbox, plainly)
        self._count(sandbox_id)

    def _open_host_ports(self, sandbox: Sandbox, addresses: tuple[str, ...]) -> None:
        sandbox_id = sandbox.sandbox_id
        self._host[sandbox_id] = tuple(
            host_listener(port, sandbox_id, addresses) for port in sandbox.host_ports if not port.proxy_protocol
        )
        self._proxied[sandbox_id] = tuple(port for port in sandbox.host_ports if port.proxy_protocol)
        self._sandbox_addresses[sandbox_id] = addresses

    def release(self, sandbox_id: str) -> None:
        self._forget(sandbox_id)
        self._holder.release_owner(f"sandbox {sandbox_id}")

    def _count(self, sandbox_id: str) -> None:
        """A sandbox came or goes: is that a change of what is written?"""
        endpoints, _addresses = self._up.get(sandbox_id, ((), ()))
        if sandbox_id in self._host or not self._published.isdisjoint(endpoints):
            self._changes += 1

    def _forget(self, sandbox_id: str) -> None:
        self._count(sandbox_id)
        endpoints, addresses = self._up.pop(sandbox_id, ((), ()))
        for endpoint_id in endpoints:
            if self._ways_out.get(endpoint_id) == addresses:
                del self._ways_out[endpoint_id]
        for known in (self._host, self._proxied, self._sandbox_addresses):
            known.pop(sandbox_id, None)

    def set_ingress(self, record: IngressRecord) -> None:
        """Takes the ports it can have; `conflict` tells of the others."""
        self.ingress = record
        self._changes += 1
        self._published = frozenset(backend.endpoint_id for port in record.ports for backend in port.backends)
        keys = {_ingress_key(port): None for port in record.ports}
        self._holder.keep(_INGRESS, keys)
        self._conflicts, self._elsewhere = [], []
        for key in keys:
            try:
                if not self._holder.hold(key, _INGRESS):
                    self._conflicts.append(key)
            except NoSuchAddress:
                self._elsewhere.append(key)

    def conflict(self) -> AlreadyExists | None:
        if not self._conflicts:
            return AlreadyExists(self._relay_problem) if self._relay_problem else None
        ports = ", ".join(f"{key.port}/{key.protocol}" for key in self._conflicts)
        return AlreadyExists(
            f"published port {ports} is already allocated by another program on this node: free it or publish another"
        )

    # -- what follows ------------------------------------------------------------------------------------------------

    def peers(self) -> Peers:
        """The other nodes on the ingress network."""
        network = self._network()
        return Peers() if network is None else peers_of(network.state.endpoints.values(), self.ingress.addresses)

    def returns(self) -> Returns:
        """How answers find back to the nodes that led clients here."""
        network = self._network()
        subnets = () if network is None else network.state.table.subnets
        return returns_of(self.peers(), self.ingress.addresses, (*self._gateway_subnets(), *subnets))

    def _gateway_subnets(self) -> tuple[str, ...]:
        ground = self._ground
        return (
            (ground.gateway_subnet,)
            if ground.gateway_subnet6 is None
            else (ground.gateway_subnet, ground.gateway_subnet6)
        )

    def document(self) -> list[Command]:
        """The host's table as it should be now."""
        return host_rules.host_document(self._rules())

    def _around(self, peers: Peers) -> Surroundings:
        own = tuple(map(plain, self.ingress.addresses))
        return Surroundings(self._ground.config.node_address, own, self._ways_out, peers)

    def _rules(self) -> HostRules:
        config, peers = self._ground.config, self.peers()
        around = self._around(peers)
        not_here = {*self._conflicts, *self._elsewhere}
        programmed = () if self._programmed is None else self._programmed.listeners
        before = {listener.chain: listener for listener in programmed if listener.answers_nodes}
        listeners = []
        for port in self.ingress.ports:
            if not port.proxy_protocol:
                listener = ingress_listener(port, around, answers_here=_ingress_key(port) not in not_here)
                listeners.append(with_leaving(listener, before.get(listener.chain), around))
        for sandbox_id in sorted(self._host):
            listeners += self._host[sandbox_id]
        return HostRules(
            table=names.host_table(config.prefix),
            gateway_ports=names.gateway_port_prefix(config.prefix) + "*",
            gateway_subnets=self._gateway_subnets(),
            ingress_device=names.ingress_device(config.prefix),
            ingress_addresses=around.ingress_addresses,
            listeners=tuple(listeners),
            peers=peers.others,
            keeps_clients=peers.keeps_clients,
            mark=mark_of(config.prefix),
            data_path_port=config.data_path_port,
        )

    # -- bringing it about -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """From now on the table is written. Before, sandboxes taken over one by one would unpublish one another."""
        self._started = True
        await self.sync()

    async def sync(self) -> None:
        """Bring the host's table to what is wanted now."""
        if not self._started:
            return
        async with self._lock:
            network = self._network()
            state, changes = None if network is None else network.state, self._changes
            if self._is_synced(changes, state):
                return
            wanted = self._rules()
            ended = self._turn_over(wanted)
            changed = wanted != self._programmed
            if changed or ended:
                await self._ground.threads.run(partial(self._write, wanted if changed else None, ended))
            self._programmed = wanted
            await self._relay(again=False)
            self._synced = None if self._relay_problem else (changes, state)

    def _is_synced(self, changes: int, state: TableState | None) -> bool:
        """Connections that are to finish may have to end by what is not counted."""
        if self._synced is None or self._lingering:
            return False
        return self._synced[0] == changes and self._synced[1] is state

    async def _relay(self, *, again: bool) -> None:
        """A relay that does not work is a problem of its ports only; `conflict` tells of it."""
        around = self._around(Peers())
        around = replace(around, gateways={**around.gateways, **self._sandbox_addresses})
        not_here = {*self._conflicts, *self._elsewhere}
        ports = [port for port in self.ingress.ports if port.proxy_protocol and _ingress_key(port) not in not_here]
        network = self._network()
        known = () if network is None else network.state.endpoints
        wanted = relay_wanted(ports, self._proxied, around, self._relayed, {*known, *self._sandbox_addresses})
        try:
            await self._relays.apply(wanted, again=again)
        except Unavailable as error:
            self._relay_problem = str(error)
            return
        self._relayed, self._relay_problem = wanted, ""

    def _turn_over(self, wanted: HostRules) -> list[TargetKey]:
        """The targets whose connections end now: all of backends that are gone, and datagrams to withdrawn ones."""
        now = target_keys(wanted.listeners)
        before = {} if self._programmed is None else target_keys(self._programmed.listeners)
        withdrawn = {key: owners for key, owners in before.items() if key not in now}
        self._lingering = {key: owners for key, owners in (self._lingering | withdrawn).items() if key not in now}
        if not self._lingering:
            return []
        gone = [key for key, owners in self._lingering.items() if not self._is_alive(key, owners)]
        for key in gone:
            del self._lingering[key]
        return [*gone, *(key for key in withdrawn if key.protocol == _DATAGRAMS and key not in gone)]

    def _is_alive(self, key: TargetKey, owners: frozenset[str]) -> bool:
        """A sandbox's way out goes with the sandbox; elsewhere a backend exists as long as it is in the table."""
        target = ip_address(key.address)
        if any(target in ip_network(subnet) for subnet in self._gateway_subnets()):
            return any(key.address in addresses for _endpoints, addresses in self._up.values())
        network = self._network()
        return network is not None and any(owner in network.state.endpoints for owner in owners)

    async def rewrite(self) -> None:
        """Whatever the kernel has now."""
        async with self._lock:
            wanted = self._rules()
            await self._ground.threads.run(partial(self._write, wanted, []))
            self._programmed = wanted

    def listeners(self) -> tuple[Listener, ...]:
        """What ports lead to in the host's table, as wanted now."""
        return self._rules().listeners

    @property
    def relayed(self) -> Wanted:
        """What the process that speaks the PROXY protocol leads on, as it was told."""
        return self._relayed

    @property
    def relayed_ports(self) -> int:
        return len(self._relayed.ports)

    async def relay_problems(self) -> list[str]:
        """Why ports with the PROXY protocol do not work, if so."""
        if self._relay_problem:
            return [self._relay_problem]
        if self._relayed.ports and not await self._relays.is_there():
            return ["the process that speaks the PROXY protocol is gone"]
        return []

    async def tell_relay(self) -> None:
        """Whatever it was told before."""
        async with self._lock:
            await self._relay(again=True)

    def _write(self, wanted: HostRules | None, ended: list[TargetKey]) -> None:
        if wanted is not None:
            self._ground.nft.run(host_rules.host_document(wanted))
        if ended:
            flows.nudge(flows.end(self._ground.netfilter, ended), mark_of(self._ground.config.prefix))

    def close(self) -> None:
        self._holder.close()

    def remove(self) -> None:
        """Blocking: take the table away."""
        self._ground.nft.run(host_rules.delete_table(names.host_table(self._ground.config.prefix)))
        self._programmed = self._synced = None


def _key(port: HostPort) -> PortKey:
    return PortKey(port.protocol, port.published, port.host_ip, port.proxy_protocol)


def _ingress_key(port: IngressPort) -> PortKey:
    return PortKey(port.protocol, port.published_port, port.host_ip, port.proxy_protocol)
