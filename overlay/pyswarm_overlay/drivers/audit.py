"""Verification of the networks whose devices are in the host's own namespace: bridges, parents of macvlan networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from pyswarm_common.errors import FailedPrecondition
from pyswarm_overlay.core import names
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.network import Network
from pyswarm_overlay.networks import Networks
from pyswarm_overlay.sandbox import LiveSandbox
from pyswarm_overlay.sandboxes import Sandboxes

from .interface import HostDevices


class DriverAudit:
    """`live` tells the sandboxes that are up."""

    def __init__(
        self, ground: Ground, networks: Networks, sandboxes: Sandboxes, live: Mapping[str, LiveSandbox]
    ) -> None:
        self._ground = ground
        self._networks = networks
        self._sandboxes = sandboxes
        self._live = live

    @property
    def place(self) -> Literal["network"]:
        return "network"

    def places(self) -> Collection[str]:
        return [network.network_id for network in self._networks.all() if isinstance(network.devices, HostDevices)]

    async def observe(self, key: str) -> list[str]:
        network = self._networks.find(key)
        if network is None:
            return []
        async with network.lock:
            return await self._ground.threads.run(lambda: self._problems(network))

    def _problems(self, network: Network) -> list[str]:
        """Blocking."""
        if not isinstance(network.devices, HostDevices):
            return []
        lost = self._without_port(network, network.devices)
        return [*network.devices.problems(), *(f"sandbox {name} is not joined" for name in lost)]

    def _without_port(self, network: Network, devices: HostDevices) -> list[str]:
        here = [sandbox_id for sandbox_id, live in list(self._live.items()) if network.network_id in live.network_ids]
        return [name for name in here if not devices.has_port(names.network_port(name, network.network_id))]

    async def repair(self, key: str) -> None:
        network = self._networks.find(key)
        if network is None:
            return
        async with network.lock:
            lost = await self._ground.threads.run(lambda: self._mend(network))
        for sandbox_id in lost:
            await self._sandboxes.verify(sandbox_id)

    def _mend(self, network: Network) -> list[str]:
        """Blocking; the sandboxes that are still to be joined."""
        if not isinstance(network.devices, HostDevices):
            return []
        try:
            network.devices.ensure()
        except FailedPrecondition:  # its parent is the node's, which only the node's owner can bring back
            return []
        return self._without_port(network, network.devices)

    def size(self) -> dict[str, int]:
        """Networks are counted by who looks after those of overlays."""
        return {}
