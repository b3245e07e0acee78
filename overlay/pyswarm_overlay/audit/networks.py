"""Verifies the namespaces of networks: bridge, tunnel, ports, forwarding entries and neighbours.

A port that is missing belongs to a sandbox, which is then built again, after the network's own devices are right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Literal

from pyswarm_overlay.core import comparison, names
from pyswarm_overlay.core.comparison import WantedNetwork
from pyswarm_overlay.core.facts import Observed
from pyswarm_overlay.core.names import BRIDGE, VXLAN
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.ingress import HOST_USER, Ingress
from pyswarm_overlay.kernel import mending, rtnl
from pyswarm_overlay.kernel.netlink import Message
from pyswarm_overlay.network import BRIDGE_MAC, Devices, Network
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
            found = await self._ground.threads.run(work)
            here = [live for live in list(self._live.values()) if key in live.network_ids]
        for live in here:
            if names.network_port(live.sandbox.sandbox_id, key) not in found.links:
                await self._sandboxes.verify(live.sandbox.sandbox_id)
        if self._ingress.port not in found.links:
            await self._ingress.verify()

    def size(self) -> dict[str, int]:
        present = [network for network in self._networks.all() if network.devices is not None]
        tunnels = [network.state.tunnels(self._ground.config.node_address) for network in present]
        entries = sum(len(one.forwarding) + len(one.neighbours) for one in tunnels)
        return {"networks": len(present), "tunnel entries": entries}

    def _wanted(self, network: Network, devices: Devices) -> WantedNetwork:
        tunnels = devices.as_sent(network.state.tunnels(self._ground.config.node_address))
        ports = {
            names.network_port(live.sandbox.sandbox_id, network.network_id): network.mac(attachment.addresses)
            for live in self._live.values()
            for attachment in live.sandbox.attachments
            if attachment.network_id == network.network_id
        }
        if HOST_USER in network.users and self._ingress.addresses:
            ports[self._ingress.port] = names.mac_of(self._ingress.addresses)
        users = {names.network_port(user, network.network_id) for user in network.users}
        return WantedNetwork(
            bridge_mac=BRIDGE_MAC,
            mtu=devices.mtu,
            tunnel=devices.tunnel,
            ports=ports,
            forwarding=tunnels.forwarding,
            neighbours=tunnels.neighbours,
            spared=frozenset({*users, *self._sandboxes.dying, self._ingress.port}),
        )

    def _mend(self, network: Network, devices: Devices, wanted: WantedNetwork) -> Observed:
        """Blocking; moves this thread into the namespace."""
        if not devices.is_kept():
            devices.keep()
        devices.enter()
        found = _observe(devices)
        devices.netlink.transact([rtnl.delete_link_named(name) for name in comparison.strays(wanted, found.links)])
        vxlan = found.links.get(VXLAN)
        if vxlan is not None and vxlan.tunnel != wanted.tunnel:
            devices.remove_port(VXLAN)
        devices.ensure()
        found = _observe(devices)
        devices.netlink.transact(_settings(wanted, found))
        devices.sync_tunnels(network.state.tunnels(self._ground.config.node_address))
        return found


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
    bridge, vxlan = found.links[BRIDGE], found.links[VXLAN]
    messages = [
        mending.set_link(bridge.index, wanted.mtu, wanted.bridge_mac),
        mending.set_link(vxlan.index, wanted.mtu),
    ]
    messages += _port(vxlan.index, bridge.index, flood=True)
    for port, mac in wanted.ports.items():
        link = found.links.get(port)
        if link is not None:
            messages += [mending.set_link(link.index, wanted.mtu), *_port(link.index, bridge.index, flood=False)]
            messages += [*_elsewhere(found, mac, link.index), rtnl.new_port_fdb(link.index, mac)]
    for mac in wanted.forwarding:
        messages += _elsewhere(found, mac, vxlan.index)
    messages += [mending.delete_entry(entry) for entry in found.neighbours if entry.of_device and entry.odd]
    return messages


def _port(index: int, bridge: int, *, flood: bool) -> list[Message]:
    return [
        rtnl.set_master(index, bridge),
        rtnl.set_bridge_port(index, learning=False, flood=flood, isolated=False),
    ]


def _elsewhere(found: Observed, mac: str, index: int) -> list[Message]:
    return [
        mending.delete_entry(entry)
        for entry in found.neighbours
        if entry.mac == mac and not entry.address and not entry.of_device and entry.index != index
    ]
