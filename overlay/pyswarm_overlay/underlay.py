"""How large packets between this host and its peers may be: the smallest MTU of the routes to them.

Asked of the kernel's routing table for each peer (its interface's MTU, or the route's own if it has one), so it holds
whatever interface leads there. What the kernel learned from ICMP on the way is left to the kernel: it passes that on to
the sender, and forgets it again. Without peers it is the MTU of the interface that has our own address.

Decides nothing about devices: `following` brings them to a change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress

from pyswarm_common.addresses import is_ipv6
from pyswarm_common.errors import InvalidArgument

from .kernel import rtnl
from .kernel.netlink import Netlink
from .kernel.routes import read_route

VXLAN_OVERHEAD_V4 = 50
VXLAN_OVERHEAD_V6 = 70
_LEAST_MTU = 68
_MOST_MTU = 65535


class Underlay:
    """What the host's own namespace says of the ways to the peers. `look` blocks; the rest does not."""

    def __init__(self, netlink: Netlink, node_address: str) -> None:
        """Raises InvalidArgument where no interface has the address: no peer could answer us."""
        self._netlink = netlink
        self._own = node_address
        self._lock = threading.Lock()
        self._peers: frozenset[str] = frozenset()
        self._own_mtu = _interface_mtu(netlink, node_address)
        if self._own_mtu == 0:
            raise InvalidArgument(
                f"no interface of this host has the node address {node_address}: give one of its own addresses"
            )
        self.mtu = self._own_mtu

    @property
    def overlay_mtu(self) -> int:
        """What is left of a packet between hosts for a packet between sandboxes."""
        return max(_LEAST_MTU, self.mtu - (VXLAN_OVERHEAD_V6 if is_ipv6(self._own) else VXLAN_OVERHEAD_V4))

    def is_new(self, peers: Iterable[str]) -> bool:
        """Whether one of these has not been looked at yet."""
        return any(peer not in self._peers and self._is_peer(peer) for peer in peers)

    def strangers(self, peers: Iterable[str]) -> list[str]:
        """Those of the other family: no tunnel leads to them."""
        return sorted({peer for peer in peers if peer and is_ipv6(peer) != is_ipv6(self._own)})

    def look(self, peers: Iterable[str]) -> bool:
        """Ask for the routes to exactly these peers; whether the MTU is another one than before. Blocking."""
        with self._lock:
            self._peers = frozenset(filter(self._is_peer, peers))
            links = {link.index: link.mtu for link in rtnl.read_links(self._netlink).values()}
            self._own_mtu = _interface_mtu(self._netlink, self._own) or self._own_mtu
            found = [mtu for peer in self._peers if (mtu := self._towards(peer, links))]
            before, self.mtu = self.mtu, min(_MOST_MTU, *found) if found else self._own_mtu
            return self.mtu != before

    def _is_peer(self, address: str) -> bool:
        return bool(address) and address != self._own and is_ipv6(address) == is_ipv6(self._own)

    def _towards(self, peer: str, links: dict[int, int]) -> int:
        """0 where there is no way now."""
        with suppress(OSError):
            route = read_route(self._netlink, peer, self._own)
            if route is not None and route.interface in links:
                return min(route.mtu or _MOST_MTU, links[route.interface])
        return 0


def _interface_mtu(netlink: Netlink, address: str) -> int:
    """Of the interface with that address; 0 if there is none."""
    holders = rtnl.read_addresses(netlink)
    for link in rtnl.read_links(netlink).values():
        if any(held.partition("/")[0] == address for held in holders.get(link.index, ())):
            return min(link.mtu, _MOST_MTU)
    return 0
