"""Published ports of this host: who may have which, and the host's table that leads them to tasks.

The table follows from the ingress ports, the host-mode ports and the sandboxes that are up; it is computed whole and
replaced whole when it differs from what was last written, so callers that wait for one another share one write. A port
that somebody else has is left out, remembered, and tried again at the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from pyswarm_common.errors import AlreadyExists

from .core import names, nft_wire, rules
from .gateway import PortHolder, PortKey, differs, plain
from .ground import Ground
from .kernel import conntrack, nft
from .records import IngressRecord
from .types import IngressPort, Sandbox

_INGRESS = "ingress"


class Publisher:
    """Holds and programs the ports.

    `gateways` tells the gateway addresses of the endpoints that are up here, `addresses` all on the ingress network.
    """

    def __init__(
        self, ground: Ground, gateways: Callable[[], dict[str, str]], addresses: Callable[[], frozenset[str]]
    ) -> None:
        self._ground = ground
        self._gateways = gateways
        self._addresses = addresses
        self._lingering: set[str] = set()
        """Targets that were withdrawn and still exist: their connections may finish."""
        self._holder = PortHolder()
        self._lock = asyncio.Lock()
        self._started = False
        self._programmed: rules.HostRules | None = None
        self._host: dict[str, tuple[rules.Listener, ...]] = {}
        self._conflicts: list[PortKey] = []
        self.ingress = IngressRecord()

    def reserve(self, sandbox: Sandbox) -> None:
        """All host-mode ports of a sandbox, or none of them."""
        owner = f"sandbox {sandbox.sandbox_id}"
        keys = [PortKey(port.protocol, port.published, port.host_ip) for port in sandbox.host_ports]
        self._holder.keep(owner, keys)
        for key in keys:
            if not self._holder.hold(key, owner):
                self._holder.keep(owner, ())
                raise AlreadyExists(
                    f"driver failed programming external connectivity on endpoint {sandbox.sandbox_id}: "
                    f"Bind for {key} failed: port is already allocated"
                )

    def open_host_ports(self, sandbox: Sandbox, gateway_address: str | None) -> None:
        if not sandbox.host_ports or gateway_address is None:
            self._host.pop(sandbox.sandbox_id, None)
            return
        target = plain(gateway_address)
        self._host[sandbox.sandbox_id] = tuple(
            rules.Listener(port.protocol, port.published, port.host_ip, ((target, port.target),))
            for port in sandbox.host_ports
        )

    def release(self, sandbox_id: str) -> None:
        self._host.pop(sandbox_id, None)
        self._holder.release_owner(f"sandbox {sandbox_id}")

    def set_ingress(self, record: IngressRecord) -> None:
        """Takes the ports it can have; `conflict` tells of the others."""
        self.ingress = record
        keys = {PortKey(port.protocol, port.published_port): None for port in record.ports}
        self._holder.keep(_INGRESS, keys)
        self._conflicts = [key for key in keys if not self._holder.hold(key, _INGRESS)]

    def conflict(self) -> AlreadyExists | None:
        if not self._conflicts:
            return None
        ports = ", ".join(f"{key.port}/{key.protocol}" for key in self._conflicts)
        return AlreadyExists(
            f"published port {ports} is already allocated by another program on this node: free it or publish another"
        )

    def _rules(self) -> rules.HostRules:
        config = self._ground.config
        taken = {(key.protocol, key.port) for key in self._conflicts}
        addresses = self.ingress.addresses
        gateways = self._gateways()
        listeners = [
            self._listener(port, gateways)
            for port in self.ingress.ports
            if (port.protocol, port.published_port) not in taken
        ]
        for sandbox_id in sorted(self._host):
            listeners += self._host[sandbox_id]
        return rules.HostRules(
            table=names.host_table(config.prefix),
            gateway_ports=names.gateway_port_prefix(config.prefix) + "*",
            gateway_subnet=self._ground.gateway_subnet,
            ingress_device=names.ingress_device(config.prefix),
            ingress_address=plain(addresses[0]) if addresses else None,
            listeners=tuple(listeners),
        )

    def _listener(self, port: IngressPort, gateways: Mapping[str, str]) -> rules.Listener:
        """A local task is reached through the gateway, and sees the client; others over the ingress network."""
        targets: list[str] = []
        for backend in sorted(port.backends, key=lambda backend: backend.endpoint_id):
            local = gateways.get(backend.endpoint_id)
            if local is not None:
                targets.append(plain(local))
            elif port.policy == "spread" and self.ingress.addresses:
                targets.append(backend.ingress_address)
        seed = f"{self._ground.config.node_address} {port.protocol} {port.published_port}"
        ordered = nft_wire.rotated(targets, seed)
        return rules.Listener(
            port.protocol, port.published_port, "", tuple((address, port.target_port) for address in ordered)
        )

    async def start(self) -> None:
        """From now on the table is written. Before, sandboxes taken over one by one would unpublish one another."""
        self._started = True
        await self.sync()

    async def sync(self) -> None:
        """Bring the host's table to what is wanted now."""
        if not self._started:
            return
        async with self._lock:
            wanted = self._rules()
            withdrawn, gone = self._turn_over(wanted)
            changed = wanted != self._programmed
            if changed or gone:
                await self._ground.threads.run(partial(self._write, wanted if changed else None, withdrawn, gone))
            self._programmed = wanted

    def _turn_over(self, wanted: rules.HostRules) -> tuple[frozenset[str], frozenset[str]]:
        """Targets (withdrawn, gone) since the last call."""
        now = _targets(wanted)
        withdrawn = _targets(self._programmed) - now
        self._lingering = (self._lingering | withdrawn) - now
        if not self._lingering:
            return withdrawn, frozenset()
        alive = self._addresses().union(plain(address) for address in self._gateways().values())
        gone = frozenset(self._lingering - alive)
        self._lingering -= gone
        return withdrawn, gone

    async def verify(self) -> list[str]:
        """Compare the kernel's table with the wanted one, and replace it if it differs."""
        async with self._lock:
            wanted = self._rules()
            if not await self._ground.threads.run(partial(self._differs, wanted)):
                return []
            await self._ground.threads.run(partial(self._write, wanted, frozenset(), frozenset()))
            self._programmed = wanted
            return [f"nftables table {wanted.table} was not as wanted"]

    def _write(self, wanted: rules.HostRules | None, withdrawn: frozenset[str], gone: frozenset[str]) -> None:
        if wanted is not None:
            self._ground.nft.run(rules.host_document(wanted))
        if withdrawn or gone:
            conntrack.cut(self._ground.netfilter, withdrawn, gone)

    def _differs(self, wanted: rules.HostRules) -> bool:
        try:
            return differs(self._ground.nft.run(rules.list_table(wanted.table)), wanted)
        except nft.NftRefused:
            return True

    def close(self) -> None:
        self._holder.close()

    def remove(self) -> None:
        """Blocking: take the table away."""
        self._ground.nft.run(rules.delete_table(names.host_table(self._ground.config.prefix)))
        self._programmed = None


def _targets(found: rules.HostRules | None) -> frozenset[str]:
    listeners = () if found is None else found.listeners
    return frozenset(address for listener in listeners for address, _port in listener.targets)
