"""Verifies the namespaces of networks: tunnel, forwarding entries and neighbours.

With the tunnel's device the interfaces on it went: their sandboxes are then built again, after it is there again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Literal

from pyswarm_overlay.core import comparison
from pyswarm_overlay.core.comparison import WantedNetwork
from pyswarm_overlay.core.facts import Observed
from pyswarm_overlay.core.names import VXLAN
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.ingress import Ingress
from pyswarm_overlay.kernel import mending, rtnl
from pyswarm_overlay.kernel.netlink import Message
from pyswarm_overlay.network import Devices, Network
from pyswarm_overlay.networks import Networks
from pyswarm_overlay.sandbox import LiveSandbox
from pyswarm_overlay.sandboxes import Sandboxes


class NetworkAudit:
    """`live` tells the sandboxes that are up."""

    def __init__(
        self,
        ground: Ground,
        networks: Networks,
        sandboxes: Sandboxes,
        ingress: Ingress,
        live: Mapping[str, LiveSandbox],
    ) -> None:
        self._ground = ground
        self._networks = networks
        self._sandboxes = sandboxes
        self._ingress = ingress
        self._live = live

    @property
    def place(self) -> Literal["network"]:
        return "network"

    def places(self) -> Collection[str]:
        return [network.network_id for network in self._networks.all() if isinstance(network.devices, Devices)]

    async def observe(self, key: str) -> list[str]:
        network = self._networks.find(key)
        if network is None:
            return []
        async with network.lock:
            if not isinstance(network.devices, Devices):
                return []
            wanted = self._wanted(network, network.devices)
            found = await self._ground.threads.run(partial(_observe, network.devices))
        return comparison.network_problems(wanted, found)

    async def repair(self, key: str) -> None:
        network = self._networks.find(key)
        if network is None:
            return
        async with network.lock:
            if not isinstance(network.devices, Devices):
                return
            work = partial(self._mend, network, network.devices, self._wanted(network, network.devices))
            before = network.devices.vxlan
            await self._ground.threads.run(work)
            if network.devices.vxlan == before:
                return
            here = [sandbox_id for sandbox_id, live in self._live.items() if key in live.network_ids]
        for sandbox_id in here:
            await self._sandboxes.verify(sandbox_id)
        if network.state.table.ingress:
            await self._ingress.verify()

    def size(self) -> dict[str, int]:
        present = [network for network in self._networks.all() if network.devices is not None]
        tunnels = [network.state.tunnels(self._ground.config.node_address) for network in present]
        entries = sum(len(one.forwarding) + len(one.neighbours) for one in tunnels)
        return {"networks": len(present), "tunnel entries": entries}

    def _wanted(self, network: Network, devices: Devices) -> WantedNetwork:
        tunnels = devices.as_sent(network.state.tunnels(self._ground.config.node_address))
        return WantedNetwork(
            mtu=devices.mtu,
            tunnel=devices.tunnel,
            forwarding=tunnels.forwarding,
            neighbours=tunnels.neighbours,
        )

    def _mend(self, network: Network, devices: Devices, wanted: WantedNetwork) -> None:
        """Blocking; moves this thread into the namespace."""
        if not devices.is_kept():
            devices.keep()
        devices.enter()
        found = _observe(devices)
        devices.netlink.transact([rtnl.delete_link_named(name) for name in comparison.strays(found.links)])
        vxlan = found.links.get(VXLAN)
        if vxlan is not None and vxlan.tunnel != wanted.tunnel:
            devices.netlink.transact([rtnl.delete_link_named(VXLAN)])
        devices.ensure()
        found = _observe(devices)
        devices.netlink.transact(_settings(wanted, found))
        devices.sync_tunnels(network.state.tunnels(self._ground.config.node_address))


class NetworkKeeping:
    """Verifies that the namespaces of networks are mounted where they belong: nobody is told when one is not."""

    def __init__(self, ground: Ground, networks: Networks) -> None:
        self._ground = ground
        self._networks = networks

    @property
    def place(self) -> Literal["network"]:
        return "network"

    def places(self) -> Collection[str]:
        return [network.network_id for network in self._networks.all() if network.devices is not None]

    async def observe(self, key: str) -> list[str]:
        network = self._networks.find(key)
        kept = network is None or network.devices is None or network.devices.is_kept()
        return [] if kept else ["its namespace is not mounted"]

    async def repair(self, key: str) -> None:
        network = self._networks.find(key)
        if network is None:
            return
        async with network.lock:
            if network.devices is not None and not network.devices.is_kept():
                await self._ground.threads.run(network.devices.keep)

    def size(self) -> dict[str, int]:
        return {}


def _observe(devices: Devices) -> Observed:
    return mending.observe(devices.netlink, forwarding=True)


def _settings(wanted: WantedNetwork, found: Observed) -> list[Message]:
    """Every setting, since something is wrong somewhere; entries that lead elsewhere go."""
    messages = [mending.set_link(found.links[VXLAN].index, wanted.mtu, master=0)]
    messages += [mending.delete_entry(entry) for entry in found.neighbours if entry.of_device and entry.odd]
    return messages
