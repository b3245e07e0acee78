"""A plugin's network as a sandbox's builder sees it: the plugin has made an interface, we move it into the sandbox."""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_common.errors import Unavailable
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import links, rtnl
from pyswarm_overlay.kernel.rtnl import VethEnd

from .interface import HostDevices
from .plugin_ledger import EndpointEntry


class EndpointLost(Unavailable):
    """The interface that a plugin made is in neither place: it has to make another one."""


class PluginDevices(HostDevices):
    """`endpoints` tells this network's endpoints by the name of their port."""

    def __init__(
        self, ground: Ground, network: str, mtu: int | None, endpoints: Callable[[], dict[str, EndpointEntry]]
    ) -> None:
        super().__init__(ground, mtu)
        self._network = network
        self._endpoints = endpoints

    def ensure(self) -> list[str]:
        """The plugin's devices are the plugin's business."""
        return []

    def own_mac(self, port: str, mac: str, /) -> str:
        """The plugin's word, or what its interface has."""
        entry = self._endpoints().get(port)
        return mac if entry is None or not entry.mac else entry.mac

    def join(self, port: str, peer: VethEnd, /) -> None:
        entry = self._endpoints().get(port)
        joined = None if entry is None else entry.joined
        link = None if joined is None else rtnl.read_link(self._netlink, joined.source)
        if link is None:
            raise EndpointLost(f"network {self._network}: the interface that its plugin made is gone")
        self._netlink.transact([links.set_down(link.index), links.move(link.index, peer)])

    def has_port(self, port: str, /) -> bool:
        entry = self._endpoints().get(port)
        return entry is not None and entry.joined is not None

    def remove(self) -> None:
        """The plugin is told when its last endpoint has gone."""
