"""One container's network namespace: built, repaired and read, always by the same plan.

`Builder.run` happens in a thread that enters the namespace and ends with the job. A sandbox that does not exist is a
sandbox where nothing was observed. The DNS sockets are opened in the same visit, at ports that the kernel picks, so that
port 53 stays free for a container that is itself a DNS server; the rules in the namespace lead 127.0.0.11:53 to them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .core import names, plan, rules
from .core.plan import WantedInterface
from .gateway import Gateway
from .kernel import conntrack, libc, netns, nft, rtnl, sysctl
from .kernel.netlink import KernelRefusal, Message, Netlink
from .network import Devices
from .records import SandboxRecord
from .types import Sandbox

Vips = Mapping[str, tuple[str, ...]]
_DNS_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class DnsSockets:
    """Both bound to 127.0.0.11 inside the sandbox."""

    udp: socket.socket
    tcp: socket.socket

    @property
    def ports(self) -> tuple[int, int]:
        return self.udp.getsockname()[1], self.tcp.getsockname()[1]

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


@dataclass(slots=True)
class LiveSandbox:
    """A sandbox that is up. `vips` is what its rules hold, by network."""

    record: SandboxRecord
    path: Path
    dns: DnsSockets
    vips: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def sandbox(self) -> Sandbox:
        return self.record.sandbox

    @property
    def own_names(self) -> dict[str, tuple[str, ...]]:
        """Its host name and aliases, which hold before any table tells of them."""
        own: dict[str, tuple[str, ...]] = {}
        for attachment in reversed(self.sandbox.attachments):
            addresses = tuple(address.partition("/")[0] for address in attachment.addresses)
            own.update((name.lower(), addresses) for name in (self.sandbox.hostname, *attachment.aliases) if name)
        return own

    @property
    def network_ids(self) -> tuple[str, ...]:
        return tuple(attachment.network_id for attachment in self.sandbox.attachments)


@dataclass(frozen=True, slots=True)
class Builder:
    """What one visit to a sandbox needs."""

    path: Path
    table: str
    sandbox_id: str
    interfaces: tuple[WantedInterface, ...]
    networks: Mapping[str, Devices]
    gateway: Gateway
    vips: Vips
    dns: DnsSockets | None
    """Those already open, when a living sandbox is repaired."""

    def run(self) -> tuple[DnsSockets, list[str]]:
        """Make it so. Returns the DNS sockets and what had to be done."""
        fd = netns.open_existing(self.path)
        fresh = fd is None
        if fd is None:
            fd = netns.create(self.path)
        else:
            libc.setns(fd)
        netlink = Netlink()
        try:
            return self._inside(netlink, fd, fresh)
        finally:
            netlink.close()
            os.close(fd)

    def _inside(self, netlink: Netlink, fd: int, fresh: bool) -> tuple[DnsSockets, list[str]]:
        sysctl.quiet_new_interfaces()
        observed = plan.NOTHING if fresh else self._observe(netlink)
        operations = plan.plan_sandbox(self.interfaces, observed)
        self._apply(netlink, fd, operations)
        done = [f"sandbox {self.sandbox_id}: {_describe(operation)}" for operation in operations]
        dns = self.dns or open_dns()
        try:
            if fresh or self._rules_differ(dns.ports):
                document = rules.sandbox_document(self.table, self.sandbox_id, self.vips, dns.ports)
                nft.run(document)
                done.append(f"sandbox {self.sandbox_id}: rewrite the VIP rules")
        except BaseException:
            if self.dns is None:
                dns.close()
            raise
        return dns, done

    def _rules_differ(self, dns_ports: tuple[int, int]) -> bool:
        """Compared by what they do: the chains, their targets and the number of rules."""
        document = rules.sandbox_document(self.table, self.sandbox_id, self.vips, dns_ports)
        wanted = rules.as_listing(document)
        try:
            found = nft.run(rules.list_table(self.table))
        except nft.NftRefused:
            return True
        same_targets = rules.observed_targets(found) == rules.observed_targets(wanted)
        same_ports = rules.resolver_ports(found) == dns_ports
        return not (same_targets and same_ports and rules.rule_counts(found) == rules.rule_counts(wanted))

    def _observe(self, netlink: Netlink) -> plan.ObservedSandbox:
        links = {name: link for name, link in rtnl.read_links(netlink).items() if link.kind == "veth"}
        addresses = rtnl.read_addresses(netlink)
        name_of = {link.index: name for name, link in links.items()}
        gateways = rtnl.read_default_gateways(netlink)
        return plan.ObservedSandbox(
            interfaces={
                name: plan.ObservedInterface(link.index, link.mac, link.up, frozenset(addresses.get(link.index, ())))
                for name, link in links.items()
            },
            default_gateways=frozenset((gateway, name_of[index]) for gateway, index in gateways if index in name_of),
            ports=frozenset(interface.port for interface in self.interfaces if self._has_port(interface)),
        )

    def _has_port(self, interface: WantedInterface) -> bool:
        if interface.network_id is None:
            return self.gateway.has_port(interface.port, interface.addresses[0])
        return self.networks[interface.network_id].has_port(interface.port)

    def _apply(self, netlink: Netlink, fd: int, operations: Sequence[plan.Operation]) -> None:
        later: list[plan.Operation] = []
        for operation in operations:
            match operation:
                case plan.RemoveInterface(name):
                    netlink.transact([rtnl.delete_link_named(name)])
                case plan.RemovePort(interface):
                    self._remove_port(interface)
                case plan.CreatePair(interface):
                    self._create(interface, fd)
                case _:
                    later.append(operation)
        index = {name: link.index for name, link in rtnl.read_links(netlink).items()}
        messages = [rtnl.set_link_up(1), *(_message(operation, index) for operation in later)]
        # A route needs its interface up and addressed, whatever the order of the interfaces.
        messages.sort(key=lambda message: message.kind == rtnl.RTM_NEWROUTE)
        netlink.transact(messages)

    def _create(self, interface: WantedInterface, fd: int) -> None:
        """A port of that name may be left from a namespace that the kernel is still taking down."""
        peer = rtnl.VethEnd(interface.name, interface.mtu, interface.mac, netns=fd)
        try:
            self._join(interface, peer)
        except KernelRefusal as refusal:
            if refusal.errno != errno.EEXIST:
                raise
            self._remove_port(interface)
            self._join(interface, peer)

    def _join(self, interface: WantedInterface, peer: rtnl.VethEnd) -> None:
        if interface.network_id is None:
            self.gateway.join(interface.port, peer, interface.addresses[0])
        else:
            self.networks[interface.network_id].join(interface.port, peer)

    def _remove_port(self, interface: WantedInterface) -> None:
        place = self.gateway if interface.network_id is None else self.networks[interface.network_id]
        place.remove_port(interface.port)


def _message(operation: plan.Operation, index: Mapping[str, int]) -> Message:
    match operation:
        case plan.AddAddress(name, address):
            return rtnl.new_address(index[name], address)
        case plan.RemoveAddress(name, address):
            return rtnl.delete_address(index[name], address)
        case plan.BringUp(name):
            return rtnl.set_link_up(index[name])
        case plan.SetDefaultRoute(name, gateway):
            return rtnl.new_default_route(gateway, index[name])
        case _:
            raise AssertionError(f"{operation} is done before the others")


def _describe(operation: plan.Operation) -> str:
    match operation:
        case plan.CreatePair(interface):
            return f"create interface {interface.name}"
        case plan.RemovePort(interface):
            return f"remove port {interface.port}"
        case plan.RemoveInterface(name):
            return f"remove interface {name}"
        case plan.AddAddress(name, address):
            return f"add {address} to {name}"
        case plan.RemoveAddress(name, address):
            return f"remove {address} from {name}"
        case plan.BringUp(name):
            return f"bring {name} up"
        case plan.SetDefaultRoute(name, gateway):
            return f"route through {gateway} on {name}"


def open_dns() -> DnsSockets:
    """In the namespace of the calling thread. The loopback interface is up by now."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    udp.bind((rules.RESOLVER, 0))
    tcp.bind((rules.RESOLVER, 0))
    tcp.listen(_DNS_BACKLOG)
    return DnsSockets(udp, tcp)


def interfaces_of(
    sandbox: Sandbox,
    networks: Mapping[str, tuple[bool, int, str]],
    prefix: str,
    gateway_address: str | None,
    gateway: str,
    gateway_mtu: int,
) -> tuple[WantedInterface, ...]:
    """The interfaces in their order: overlays, then ingress, then the way out.

    `networks` says of each network whether it is the ingress one, its MTU, and this sandbox's MAC on it.
    """
    ordered = sorted(sandbox.attachments, key=lambda attachment: networks[attachment.network_id][0])
    wanted = [
        WantedInterface(
            name=f"eth{number}",
            port=names.network_port(sandbox.sandbox_id, attachment.network_id),
            network_id=attachment.network_id,
            mac=networks[attachment.network_id][2],
            mtu=networks[attachment.network_id][1],
            addresses=attachment.addresses,
        )
        for number, attachment in enumerate(ordered)
    ]
    if gateway_address is not None:
        wanted.append(
            WantedInterface(
                name=f"eth{len(wanted)}",
                port=names.gateway_port(prefix, sandbox.sandbox_id),
                network_id=None,
                mac=names.mac_of((gateway_address,)),
                mtu=gateway_mtu,
                addresses=(gateway_address,),
                gateway=gateway,
            )
        )
    return tuple(wanted)


@dataclass(frozen=True, slots=True)
class VipChange:
    """What one network's change means to one sandbox's rules and connections."""

    sandbox_id: str
    path: Path
    document: list[rules.Command]
    withdrawn: frozenset[str]
    """Backends that take no new connections: their datagram flows end now."""
    gone: frozenset[str]
    """Backends that exist no more: all their connections end now."""

    def apply(self) -> None:
        """In a thread of its own; it leaves the thread inside the sandbox."""
        fd = netns.open_existing(self.path)
        if fd is None:
            return
        try:
            libc.setns(fd)
        finally:
            os.close(fd)
        if self.document:
            nft.run(self.document)
        if self.withdrawn or self.gone:
            conntrack.cut(self.withdrawn, self.gone)


def vip_document(live: LiveSandbox, table: str, network_id: str, wanted: Vips) -> list[rules.Command]:
    """What brings one sandbox's rules from what they hold to what is wanted."""
    known = live.vips.get(network_id, {})
    difference = plan.diff(wanted, known)
    document: list[rules.Command] = []
    for vip in difference.remove:
        document += rules.remove_vip(table, vip)
    for vip, backends in difference.put:
        document += rules.put_vip(table, live.sandbox.sandbox_id, vip, backends, exists=vip in known)
    return document
