"""The host's own namespace: each sandbox's way out, the ingress device and the published ports.

The way out is a veth pair between sandbox and host with one address at each end: no bridge, so sandboxes meet on
their networks and not here, and br_netfilter cannot take a packet for a bridged one. It is also the way in to a local
task, without changing the client's address. The ingress device is this host's own foot on the ingress network, the way
to tasks elsewhere. Published ports are translated in our own nft table; each is also held by a bound socket, so that
nobody else can take it and a port that is taken is noticed.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Interface, IPv4Network, ip_interface
from typing import Any

from pyswarm_common.errors import Exhausted

from .core import names, rules
from .core.names import mac_of
from .drivers.interface import NetworkDevices
from .ground import Ground
from .kernel import rtnl, sysctl

_PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Gateway:
    """The host's ends of all ways out: they share the subnet's first address, each sandbox has another one."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._network = IPv4Network(ground.gateway_subnet)
        self.address = str(next(self._network.hosts()))
        self._group = names.link_group(ground.config.prefix)
        self._used: set[int] = {0, 1, self._network.num_addresses - 1}
        self._next = 2

    @property
    def mtu(self) -> int:
        return self._ground.underlay_mtu

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
        return ["net.ipv4.ip_forward was off"] if sysctl.write("ipv4/ip_forward", "1") else []

    def join(self, port: str, peer: rtnl.VethEnd, address: str) -> None:
        """A new pair: `port` here with a route to the sandbox's `address`, the other end where `peer` says."""
        netlink = self._ground.netlink
        netlink.transact([rtnl.new_veth(rtnl.VethEnd(port, self.mtu, group=self._group), peer)])
        link = rtnl.read_link(netlink, port)
        assert link is not None, "a port that was just made"
        route = rtnl.new_peer_address(link.index, self.address, plain(address))
        netlink.transact([rtnl.allow_loopback_routes(link.index), route])

    def has_port(self, port: str, address: str) -> bool:
        netlink = self._ground.netlink
        link = rtnl.read_link(netlink, port)
        return link is not None and link.up and plain(address) in rtnl.read_peers(netlink, link.index)

    def remove_port(self, port: str) -> None:
        self._ground.netlink.transact([rtnl.delete_link_named(port)])

    def ports(self) -> set[str]:
        start = names.gateway_port_prefix(self._ground.config.prefix)
        return {name for name in rtnl.read_links(self._ground.netlink) if name.startswith(start)}

    def remove(self) -> None:
        """All ports in one go: one by one, each would cost the kernel a grace period."""
        if self.ports():
            self._ground.netlink.transact([rtnl.delete_group(self._group)])


class IngressDevice:
    """This host's own interface on the ingress network."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.name = names.ingress_device(ground.config.prefix)
        self.port = names.network_port(self.name, "host")
        """Its other end, on the ingress network's bridge."""

    def ensure(self, devices: NetworkDevices, addresses: tuple[str, ...]) -> list[str]:
        """Blocking; an end without its port on the ingress bridge is made anew."""
        netlink = self._ground.netlink
        link = rtnl.read_link(netlink, self.name)
        done: list[str] = []
        if link is None or not devices.has_port(self.port) or link.mac != mac_of(addresses):
            netlink.transact([rtnl.delete_link_named(self.name)])
            devices.remove_port(self.port)
            self._create(devices, addresses)
            done.append(f"device {self.name} was missing")
            link = rtnl.read_link(netlink, self.name)
            assert link is not None, "a device that was just made"
        found = rtnl.read_addresses(netlink).get(link.index, set())
        messages = [rtnl.delete_address(link.index, address) for address in sorted(found.difference(addresses))]
        messages += [rtnl.new_address(link.index, address) for address in addresses if address not in found]
        if not link.up:
            messages.append(rtnl.set_link_up(link.index))
        if link.mtu != devices.mtu:
            messages.append(rtnl.set_mtu(link.index, devices.mtu))
        netlink.transact([*messages, rtnl.allow_loopback_routes(link.index)])
        return done or [f"device {self.name}: {message.what}" for message in messages]

    def _create(self, devices: NetworkDevices, addresses: tuple[str, ...]) -> None:
        """Made from inside the ingress network's namespace, its other end sent to ours."""
        with open("/proc/thread-self/ns/net", "rb") as home:  # noqa: PTH123  (a descriptor, not a file to read)
            devices.join(self.port, rtnl.VethEnd(self.name, devices.mtu, mac_of(addresses), netns=home.fileno()))

    def remove(self) -> None:
        self._ground.netlink.transact([rtnl.delete_link_named(self.name)])


@dataclass(frozen=True, slots=True)
class PortKey:
    """A port of this host, as the kernel hands it out."""

    protocol: str
    port: int
    host_ip: str = ""

    def __str__(self) -> str:
        return f"{self.host_ip or '0.0.0.0'}:{self.port}"  # noqa: S104  (wording, not a bind)


class PortHolder:
    """Sockets that hold published ports. They are bound and never listen."""

    def __init__(self) -> None:
        self._held: dict[PortKey, tuple[socket.socket | None, str]] = {}

    def hold(self, key: PortKey, owner: str) -> bool:
        """False when another owner, or another program of this host, has it."""
        held = self._held.get(key)
        if held is not None:
            return held[1] == owner
        kind = _PROTOCOLS.get(key.protocol)
        bound = None
        if kind is not None:
            bound = _bind(kind, key)
            if bound is None:
                return False
        self._held[key] = (bound, owner)
        return True

    def release(self, key: PortKey) -> None:
        bound, _owner = self._held.pop(key, (None, ""))
        if bound is not None:
            bound.close()

    def keep(self, owner_prefix: str, wanted: Iterable[PortKey]) -> None:
        """Release what owners of that prefix hold beyond `wanted`."""
        kept = set(wanted)
        for key, (_bound, owner) in list(self._held.items()):
            if owner.startswith(owner_prefix) and key not in kept:
                self.release(key)

    def release_owner(self, owner: str) -> None:
        for key, (_bound, holder) in list(self._held.items()):
            if holder == owner:
                self.release(key)

    def close(self) -> None:
        for key in list(self._held):
            self.release(key)


def _bind(kind: int, key: PortKey) -> socket.socket | None:
    bound = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        bound.bind((key.host_ip or "0.0.0.0", key.port))  # noqa: S104  (published to everybody, on request)
    except OSError as error:
        bound.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return bound


def differs(found: Mapping[str, Any], wanted: rules.HostRules) -> bool:
    """Whether a listing of the host's table does something else than wanted."""
    expected = rules.as_listing(rules.host_document(wanted))
    same_targets = rules.observed_targets(found) == rules.observed_targets(expected)
    return not (same_targets and rules.rule_counts(found) == rules.rule_counts(expected))


@lru_cache(maxsize=4096)
def plain(address: str) -> str:
    """Without its prefix length."""
    return str(ip_interface(address).ip)
