"""A bridge network: containers of this host meet on a bridge in the host's own namespace; other hosts have their own.

The host has the gateway address on it, so it reaches the containers and they reach it. Their way out is the one that
every sandbox has (masqueraded, published ports included), unless the network says `enable_ip_masquerade=false`: then
the bridge is their default route, and they are seen with their own addresses. `enable_icc=false` isolates the ports
from one another. What keeps bridges apart is in `bridge_rules`.
"""

from __future__ import annotations

import threading
from typing import Any

from pyswarm_common.network_options import BridgeOptions
from pyswarm_overlay.core import names
from pyswarm_overlay.core.rules import Command
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import links, nft, rtnl
from pyswarm_overlay.kernel.rtnl import VethEnd

from . import bridge_rules
from .bridge_rules import BridgeRule
from .interface import HostDevices


class BridgeTable:
    """The table of all bridges of this host."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._name = bridge_rules.table_name(ground.config.prefix)
        self._bridges: dict[str, BridgeRule] = {}
        self._lock = threading.Lock()

    def put(self, bridge: BridgeRule) -> bool:
        """Blocking; whether the table had to be written."""
        with self._lock:
            self._bridges[bridge.name] = bridge
            if self._is_written():
                return False
            self._write()
            return True

    def is_written(self) -> bool:
        """Blocking."""
        with self._lock:
            return self._is_written()

    def drop(self, name: str) -> None:
        with self._lock:
            if self._bridges.pop(name, None) is not None:
                self._write()

    def _document(self) -> list[Command]:
        config = self._ground.config
        ways_out = names.gateway_port_prefix(config.prefix) + "*"
        return bridge_rules.document(self._name, ways_out, self._bridges.values(), config.data_path_port)

    def _write(self) -> None:
        self._ground.nft.run(self._document())

    def _is_written(self) -> bool:
        try:
            found: dict[str, Any] = self._ground.nft.run(bridge_rules.listing(self._name))
        except nft.NftRefused:
            return False
        return bridge_rules.shape(found) == bridge_rules.shape({"nftables": self._document()})


class BridgeDevices(HostDevices):
    """The bridge of one network. Whoever names it has made sure that it is not somebody else's."""

    def __init__(
        self, ground: Ground, table: BridgeTable, options: BridgeOptions, name: str, gateways: tuple[str, ...]
    ) -> None:
        super().__init__(ground, options.mtu)
        self._table = table
        self._options = options
        self.name = name
        self._gateways = gateways
        """With prefix length."""
        self._prefix = f"{ground.config.prefix}-"

    def problems(self) -> list[str]:
        link = rtnl.read_link(self._netlink, self.name)
        if link is None:
            return [f"bridge {self.name} is missing"]
        found = rtnl.read_addresses(self._netlink).get(link.index, set())
        wrong = [f"bridge {self.name} lacks {address}" for address in self._gateways if address not in found]
        if not link.up:
            wrong.append(f"bridge {self.name} is down")
        if not self._table.is_written():
            wrong.append("the rules that keep bridges apart are not as wanted")
        return wrong

    def ensure(self) -> list[str]:
        done: list[str] = []
        link = rtnl.read_link(self._netlink, self.name)
        if link is None:
            self._netlink.transact([rtnl.new_bridge(self.name, self.mtu)])
            link = rtnl.read_link(self._netlink, self.name)
            assert link is not None, "a bridge that was just made"
            done.append(f"bridge {self.name} was missing")
        found = rtnl.read_addresses(self._netlink).get(link.index, set())
        messages = [rtnl.new_address(link.index, address) for address in self._gateways if address not in found]
        if not link.up:
            messages.append(rtnl.set_link_up(link.index))
        done = done or [f"bridge {self.name}: {message.what}" for message in messages]
        self._netlink.transact([*messages, links.loosen_reverse_path(link.index)])
        if self._table.put(BridgeRule(self.name, is_routed=not self._options.has_masquerade)):
            done.append(f"the rules of bridge {self.name} were not as wanted")
        return done

    def join(self, port: str, peer: VethEnd, /) -> None:
        bridge = rtnl.read_link(self._netlink, self.name)
        if bridge is None:  # somebody removed it: whoever repairs the sandbox first brings it back
            self.ensure()
            bridge = rtnl.read_link(self._netlink, self.name)
            assert bridge is not None, "a bridge that was just made"
        outer = self._outer(port)
        self._netlink.transact([rtnl.new_veth(VethEnd(outer, self.mtu, master=bridge.index), peer)])
        link = rtnl.read_link(self._netlink, outer)
        assert link is not None, "a port that was just made"
        isolated = not self._options.has_icc
        self._netlink.transact([rtnl.set_bridge_port(link.index, learning=True, flood=True, isolated=isolated)])

    def has_port(self, port: str, /) -> bool:
        link = rtnl.read_link(self._netlink, self._outer(port))
        bridge = rtnl.read_link(self._netlink, self.name)
        return link is not None and bridge is not None and link.master == bridge.index and link.up

    def remove_port(self, port: str, /) -> None:
        self._netlink.transact([rtnl.delete_link_named(self._outer(port))])

    def ports(self) -> set[str]:
        links_now = rtnl.read_links(self._netlink)
        bridge = links_now.get(self.name)
        if bridge is None:
            return set()
        start = f"{self._prefix}p"
        ours = [link.name for link in links_now.values() if link.master == bridge.index and link.name.startswith(start)]
        return {name.removeprefix(self._prefix) for name in ours}

    def remove(self) -> None:
        """The rules go last: what still runs over the bridge is kept apart until it is gone."""
        for port in self.ports():
            self.remove_port(port)
        self._netlink.transact([rtnl.delete_link_named(self.name)])
        self._table.drop(self.name)

    def _outer(self, port: str) -> str:
        """In the host's namespace our names carry our prefix."""
        return self._prefix + port
