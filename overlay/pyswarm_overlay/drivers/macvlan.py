"""A macvlan network: each container has a hardware and an IP address of its own on the network of a host's interface.

The interface (`parent`) is the node's; without one the containers meet on a bridge of ours that leads nowhere. Nothing
of ours is on the host but that bridge: a container's interface is made in its namespace and goes with it. As the kernel
has it, host and container do not see each other through a macvlan.
"""

from __future__ import annotations

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.network_options import MacvlanOptions
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import links, rtnl
from pyswarm_overlay.kernel.rtnl import VethEnd

from .interface import HostDevices


class MacvlanDevices(HostDevices):
    """One network. `own_parent` is the name of the bridge that is made where the network names no parent."""

    def __init__(self, ground: Ground, network: str, options: MacvlanOptions, own_parent: str) -> None:
        super().__init__(ground, options.mtu)
        self._network = network
        self._options = options
        self._own_parent = "" if options.parent else own_parent
        self._parent = options.parent or own_parent

    def problems(self) -> list[str]:
        parent = rtnl.read_link(self._netlink, self._parent)
        if parent is None:
            return [f"interface {self._parent} is missing"]
        return [f"bridge {self._parent} is down"] if self._own_parent and not parent.up else []

    def ensure(self) -> list[str]:
        done: list[str] = []
        if self._own_parent and rtnl.read_link(self._netlink, self._own_parent) is None:
            self._netlink.transact([rtnl.new_bridge(self._own_parent, self.mtu)])
            done.append(f"bridge {self._own_parent} was missing")
        parent = self._read_parent()
        if self._own_parent and not parent.up:
            self._netlink.transact([rtnl.set_link_up(parent.index)])
        self._mtu = min(self._options.mtu or parent.mtu, parent.mtu)
        return done

    def own_mac(self, port: str, mac: str, /) -> str:
        """With passthru the container takes the parent over, address and all."""
        return self._read_parent().mac if self._options.mode == "passthru" else mac

    def join(self, port: str, peer: VethEnd, /) -> None:
        self._netlink.transact([links.new_macvlan(self._read_parent().index, self._options.mode, peer)])

    def has_port(self, port: str, /) -> bool:
        """There is nothing outside of the sandbox that could be missing, but the parent, with which all goes."""
        return rtnl.read_link(self._netlink, self._parent) is not None

    def remove(self) -> None:
        if self._own_parent:
            self._netlink.transact([rtnl.delete_link_named(self._own_parent)])

    def _read_parent(self) -> rtnl.Link:
        link = rtnl.read_link(self._netlink, self._parent)
        if link is None:
            raise FailedPrecondition(
                f"network {self._network}: this node has no interface {self._parent}: name one of its own as parent"
            )
        return link
