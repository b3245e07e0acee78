"""The host's own namespace: each sandbox's way out.

The way out is a veth pair between sandbox and host with one address at each end: no bridge, so sandboxes meet on
their networks and not here, and br_netfilter cannot take a packet for a bridged one. It is also the way in to a local
task, without changing the client's address. It has IPv6 too once the host has an IPv6 address that others can reach
(its own foot on an ingress network with IPv6 is one): before, it would lead nowhere, and nobody could come by it. What
was given stays until the daemon starts anew, whatever happens to the host's addresses meanwhile. A sandbox's IPv6
address there follows from its IPv4 one. Neither end asks for the other's hardware address: both are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Interface, IPv4Network, IPv6Network, ip_interface

from pyswarm_common.errors import Exhausted

from .core import names, subnets
from .ground import Ground
from .kernel import policy_routes, rtnl, sysctl
from .kernel.netlink import Message


class Gateway:
    """The host's ends of all ways out: they share the subnet's first address, each sandbox has another one."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._network = IPv4Network(ground.gateway_subnet)
        self.address = str(next(self._network.hosts()))
        self.address6: str | None = None
        """None as long as nothing is to be reached in IPv6."""
        self._group = names.link_group(ground.config.prefix)
        self._used: set[int] = {0, 1, self._network.num_addresses - 1}
        self._next = 2

    @property
    def mtu(self) -> int:
        return self._ground.underlay_mtu

    @property
    def addresses(self) -> tuple[str, ...]:
        """Ours, in every family."""
        return (self.address,) if self.address6 is None else (self.address, self.address6)

    def both(self, address: str | None) -> tuple[str, ...]:
        """A sandbox's, in every family; () without a way out."""
        if address is None:
            return ()
        twin = None if self.address6 is None else subnets.twin(address, self._ground.gateway_subnet6)
        return (address,) if twin is None else (address, twin)

    def lacks_ipv6(self, addresses: Iterable[str]) -> bool:
        """Whether ways out are to have IPv6 and have not. `addresses`: the host's, with prefix lengths."""
        subnet = self._ground.gateway_subnet6
        return self.address6 is None and subnet is not None and subnets.reaches_ipv6(addresses, subnet)

    def look(self) -> bool:
        """Blocking: whether ways out have IPv6 from now on, and had not. Those that exist are to be completed."""
        subnet = self._ground.gateway_subnet6
        if self.address6 is not None or subnet is None:
            return False
        addresses = rtnl.read_addresses(self._ground.netlink).values()
        if not self.lacks_ipv6(address for some in addresses for address in some):
            return False
        sysctl.forward_ipv6()
        self.address6 = str(IPv6Network(subnet)[1])
        return True

    def allocate(self) -> str:
        """An address that was not given lately: going round keeps late packets from a new owner."""
        size = self._network.num_addresses
        for step in range(size):
            offset = (self._next + step) % size
            if offset not in self._used:
                self._used.add(offset)
                self._next = offset + 1
                return f"{self._network[offset]}/{self._network.prefixlen}"
        raise Exhausted(f"no gateway address left for another sandbox: make {self._network} larger (gwbridge subnet)")

    def claim(self, address: str) -> bool:
        """Keep an address given by an earlier daemon; False when it does not fit the subnet or is taken."""
        interface = IPv4Interface(address)
        offset = int(interface.ip) - int(self._network.network_address)
        if interface.network != self._network or offset in self._used:
            return False
        self._used.add(offset)
        return True

    def release(self, address: str) -> None:
        self._used.discard(int(IPv4Interface(address).ip) - int(self._network.network_address))

    def ensure(self) -> list[str]:
        """Blocking. Says what was missing."""
        done = ["net.ipv4.ip_forward was off"] if sysctl.write("ipv4/ip_forward", "1") else []
        if self.address6 is not None and sysctl.forward_ipv6():
            done.append("net.ipv6.conf.all.forwarding was off")
        return done

    def join(self, port: str, peer: rtnl.VethEnd, addresses: Sequence[str]) -> None:
        """A new pair: `port` here with routes to the sandbox's `addresses`, the other end where `peer` says."""
        netlink = self._ground.netlink
        netlink.transact([rtnl.new_veth(rtnl.VethEnd(port, self.mtu, group=self._group), peer)])
        index = netlink.index_of(port)
        messages = [rtnl.allow_loopback_routes(index)]
        for address in map(plain, addresses):
            if ":" not in address:
                messages.append(rtnl.new_peer_address(index, self.address, address))
            elif peer.mac is not None:
                messages += self._ipv6(index, address, peer.mac)
        netlink.transact(messages)

    def _ipv6(self, index: int, address: str, mac: str) -> list[Message]:
        return [
            rtnl.no_link_local_address(index),
            rtnl.new_address(index, f"{self.address6}/128"),
            policy_routes.new_device_route(index, address),
            rtnl.new_neighbour(index, address, mac),
        ]

    def complete(self, port: str, mac: str, addresses: Sequence[str]) -> None:
        """IPv6 for a port that was made without, so that it need not be made anew."""
        six = [plain(address) for address in addresses if ":" in address]
        link = rtnl.read_link(self._ground.netlink, port) if six else None
        if link is not None and not self._has_ipv6(link.index, set(six)):
            self._ground.netlink.transact([message for one in six for message in self._ipv6(link.index, one, mac)])

    def has_port(self, port: str, addresses: Sequence[str]) -> bool:
        netlink = self._ground.netlink
        link = rtnl.read_link(netlink, port)
        if link is None or not link.up:
            return False
        four = {plain(address) for address in addresses if ":" not in address}
        six = {plain(address) for address in addresses if ":" in address}
        if not four <= rtnl.read_peers(netlink, link.index):
            return False
        return not six or self._has_ipv6(link.index, six)

    def _has_ipv6(self, index: int, addresses: set[str]) -> bool:
        netlink = self._ground.netlink
        own = f"{self.address6}/128"
        return (
            own in rtnl.read_addresses(netlink).get(index, ())
            and addresses <= rtnl.read_neighbours(netlink, index).keys()
            and addresses <= policy_routes.read_device_routes(netlink, index, policy_routes.family_of(own))
        )

    def remove_port(self, port: str) -> None:
        self._ground.netlink.transact([rtnl.delete_link_named(port)])

    def ports(self) -> set[str]:
        start = names.gateway_port_prefix(self._ground.config.prefix)
        return {name for name in rtnl.read_links(self._ground.netlink) if name.startswith(start)}

    def remove(self) -> None:
        """All ports in one go: one by one, each would cost the kernel a grace period."""
        if self.ports():
            self._ground.netlink.transact([rtnl.delete_group(self._group)])


@lru_cache(maxsize=4096)
def plain(address: str) -> str:
    """Without its prefix length."""
    return str(ip_interface(address).ip)
