"""One container's network namespace: built, repaired and read, always by the same plan.

`Builder.run` happens in a thread that enters the namespace and ends with the job. A sandbox that does not exist is a
sandbox where nothing was observed. The DNS sockets are opened in the same visit, at ports that the kernel picks, so
that port 53 stays free for a container that is itself a DNS server; the rules in the namespace lead 127.0.0.11:53 to
them.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .core import names, nft_wire, plan
from .core.closing_packets import Connection
from .core.plan import WantedInterface
from .core.tables import TableState
from .drivers.interface import NetworkDevices
from .gateway import Gateway
from .kernel import conntrack, libc, netns, rtnl, sysctl
from .kernel.netlink import NETLINK_NETFILTER, KernelRefusal, Message, Netlink
from .records import SandboxRecord
from .types import Sandbox
from .vip_rules import VipRules

Vips = Mapping[str, tuple[str, ...]]
_DNS_BACKLOG = 16
_MAC_WAIT_S, _MAC_PAUSE_S = 5.0, 0.02
_OUR_KINDS = frozenset({"veth", "macvlan"})


@dataclass(frozen=True, slots=True)
class Sockets:
    """Ours inside a sandbox: the resolver's two, bound to 127.0.0.11, and one to change its rules."""

    udp: socket.socket
    tcp: socket.socket
    netfilter: Netlink

    @property
    def dns_ports(self) -> tuple[int, int]:
        return self.udp.getsockname()[1], self.tcp.getsockname()[1]

    def close(self) -> None:
        """Blocking: a netfilter socket that changed something waits for the kernel."""
        self.udp.close()
        self.tcp.close()
        self.netfilter.close()


@dataclass(slots=True)
class LiveSandbox:
    """A sandbox that is up. `vips` is what its rules hold, by network."""

    record: SandboxRecord
    sockets: Sockets
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

    def vips_of(self, state: TableState) -> dict[str, tuple[str, ...]]:
        """A network's VIPs as this sandbox should see them."""
        return vips_seen(self.sandbox, state)


def vips_seen(sandbox: Sandbox, state: TableState) -> dict[str, tuple[str, ...]]:
    network_id = state.table.network_id
    places = (attachment for attachment in sandbox.attachments if attachment.network_id == network_id)
    return state.vips_seen_by([address for place in places for address in place.addresses])


@dataclass(frozen=True, slots=True)
class Builder:
    """What one visit to a sandbox needs."""

    path: Path
    table: str
    sandbox_id: str
    interfaces: tuple[WantedInterface, ...]
    networks: Mapping[str, NetworkDevices]
    gateway: Gateway
    vips: Vips
    sockets: Sockets | None
    """Those already open, when a living sandbox is repaired."""

    def run(self) -> tuple[Sockets, list[str]]:
        """Make it so. Returns the DNS sockets and what had to be done."""
        fd = netns.open_existing(self.path)
        lost = fd is None
        fresh = lost and self.sockets is None
        if fd is not None:
            libc.setns(fd)
        else:
            fd = netns.create(self.path) if fresh else self._mount_again()
        netlink = Netlink()
        try:
            sockets, done = self._inside(netlink, fd, fresh)
            return sockets, [f"sandbox {self.sandbox_id}: make or mount its namespace", *done] if lost else done
        finally:
            netlink.close()
            os.close(fd)

    def _mount_again(self) -> int:
        """Somebody unmounted a namespace that lives: our sockets in it still lead there."""
        assert self.sockets is not None
        fd = self.sockets.netfilter.namespace()
        netns.keep(fd, self.path)
        libc.setns(fd)
        return fd

    def _inside(self, netlink: Netlink, fd: int, fresh: bool) -> tuple[Sockets, list[str]]:
        sysctl.set_up_new_interfaces(ipv6=bool(self._ipv6_interfaces()))
        if not fresh:
            self._complete_ways_out()
        observed = plan.NOTHING if fresh else self._observe(netlink)
        operations = plan.plan_sandbox(self.interfaces, observed)
        self._apply(netlink, fd, operations)
        done = [f"sandbox {self.sandbox_id}: {_describe(operation)}" for operation in operations]
        sockets = self.sockets or open_sockets()
        try:
            if self._bring_rules(sockets, fresh):
                done.append(f"sandbox {self.sandbox_id}: write the VIP rules")
        except BaseException:
            if self.sockets is None:
                sockets.close()
            raise
        return sockets, done

    def _complete_ways_out(self) -> None:
        for interface in self.interfaces:
            if interface.network_id is None:
                self.gateway.complete(interface.port, interface.mac, interface.addresses)

    def _bring_rules(self, sockets: Sockets, fresh: bool) -> bool:
        """Whether they had to be written."""
        wanted = VipRules(self.table, self.sandbox_id, self.vips, sockets.dns_ports, self._has_ipv6_network())
        if not fresh:
            return wanted.repair(sockets.netfilter)
        wanted.write(sockets.netfilter)
        return True

    def _has_ipv6_network(self) -> bool:
        on_networks = (interface for interface in self.interfaces if interface.network_id is not None)
        return any(":" in address for interface in on_networks for address in interface.addresses)

    def _observe(self, netlink: Netlink) -> plan.ObservedSandbox:
        wanted = {interface.name for interface in self.interfaces}
        found = rtnl.read_links(netlink).items()
        links = {name: link for name, link in found if link.kind in _OUR_KINDS or name in wanted}
        addresses = rtnl.read_addresses(netlink)
        name_of = {link.index: name for name, link in links.items()}
        gateways = rtnl.read_default_gateways(netlink)
        return plan.ObservedSandbox(
            interfaces={
                name: plan.ObservedInterface(
                    link.index, link.mac, link.up, frozenset(addresses.get(link.index, ())), link.mtu
                )
                for name, link in links.items()
            },
            default_gateways=frozenset((gateway, name_of[index]) for gateway, index in gateways if index in name_of),
            ports=frozenset(interface.port for interface in self.interfaces if self.has_port(interface)),
        )

    def has_port(self, interface: WantedInterface) -> bool:
        if interface.network_id is None:
            return self.gateway.has_port(interface.port, interface.addresses)
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
        messages = [rtnl.set_link_up(1), *self._ipv6_settings(operations, index)]
        messages += [_message(operation, index) for operation in later]
        # A route needs its interface up and addressed, whatever the order of the interfaces.
        messages.sort(key=lambda message: message.kind == rtnl.RTM_NEWROUTE)
        _transact_patiently(netlink, messages)

    def _ipv6_settings(self, operations: Sequence[plan.Operation], index: Mapping[str, int]) -> list[Message]:
        """Before addresses are given and interfaces come up."""
        if not self._ipv6_interfaces():
            return []
        new = {operation.interface.name for operation in operations if isinstance(operation, plan.CreatePair)}
        given = (operation for operation in operations if isinstance(operation, plan.AddAddress))
        for name in {operation.name for operation in given if ":" in operation.address} - new:
            sysctl.allow_ipv6(name)
        return [rtnl.no_own_ipv6_address(index[name]) for name in sorted(new)]

    def _ipv6_interfaces(self) -> list[str]:
        return [item.name for item in self.interfaces if any(":" in address for address in item.addresses)]

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
            self.gateway.join(interface.port, peer, interface.addresses)
        else:
            self.networks[interface.network_id].join(interface.port, peer)

    def _remove_port(self, interface: WantedInterface) -> None:
        place = self.gateway if interface.network_id is None else self.networks[interface.network_id]
        place.remove_port(interface.port)


def _transact_patiently(netlink: Netlink, messages: Sequence[Message]) -> None:
    """An interface does not come up while another one on its network has its MAC: that of a sandbox which has just
    been removed, and whose namespace the kernel is still taking down."""
    until = time.monotonic() + _MAC_WAIT_S
    while True:
        try:
            return netlink.transact(messages)
        except KernelRefusal as refusal:
            if refusal.errno not in (errno.EADDRINUSE, errno.EBUSY) or time.monotonic() > until:
                raise
        time.sleep(_MAC_PAUSE_S)


def _message(operation: plan.Operation, index: Mapping[str, int]) -> Message:
    match operation:
        case plan.AddAddress(name, address):
            return rtnl.new_address(index[name], address)
        case plan.RemoveAddress(name, address):
            return rtnl.delete_address(index[name], address)
        case plan.BringUp(name):
            return rtnl.set_link_up(index[name])
        case plan.SetMtu(name, mtu):
            return rtnl.set_mtu(index[name], mtu)
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
        case plan.SetMtu(name, mtu):
            return f"set {name} to MTU {mtu}"
        case plan.SetDefaultRoute(name, gateway):
            return f"route through {gateway} on {name}"


def open_sockets() -> Sockets:
    """In the namespace of the calling thread. The loopback interface is up by now."""
    return Sockets(*_open_resolver(), Netlink(NETLINK_NETFILTER))


def reopened(sockets: Sockets) -> Sockets:
    """New sockets for names, in the namespace of the old ones; the thread ends with the job."""
    fd = sockets.netfilter.namespace()
    libc.setns(fd)
    os.close(fd)
    return Sockets(*_open_resolver(), sockets.netfilter)


def _open_resolver() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    udp.bind((nft_wire.RESOLVER, 0))
    tcp.bind((nft_wire.RESOLVER, 0))
    tcp.listen(_DNS_BACKLOG)
    return udp, tcp


def interfaces_of(
    sandbox: Sandbox,
    networks: Mapping[str, tuple[bool, int, str]],
    prefix: str,
    way_out: tuple[tuple[str, ...], tuple[str, ...], int],
) -> tuple[WantedInterface, ...]:
    """The interfaces in their order: overlays, then ingress, then the way out.

    `networks` says of each network whether it is the ingress one, its MTU, and this sandbox's MAC on it; `way_out` its
    addresses if it has a way out, the gateways and the MTU.
    """
    addresses, gateways, gateway_mtu = way_out
    ordered = sorted(sandbox.attachments, key=lambda attachment: networks[attachment.network_id][0])
    wanted = [
        WantedInterface(
            name=attachment.interface or f"eth{number}",
            port=names.network_port(sandbox.sandbox_id, attachment.network_id),
            network_id=attachment.network_id,
            mac=networks[attachment.network_id][2],
            mtu=networks[attachment.network_id][1],
            addresses=attachment.addresses,
        )
        for number, attachment in enumerate(ordered)
    ]
    if addresses:
        wanted.append(
            WantedInterface(
                name=sandbox.egress_interface or f"eth{len(wanted)}",
                port=names.gateway_port(prefix, sandbox.sandbox_id),
                network_id=None,
                mac=names.mac_of(addresses),
                mtu=gateway_mtu,
                addresses=addresses,
                gateways=gateways,
            )
        )
    return tuple(wanted)


@dataclass(frozen=True, slots=True)
class VipChange:
    """What one network's change means to one sandbox's rules and connections."""

    sandbox_id: str
    netfilter: Netlink
    parts: list[nft_wire.Part]
    whole: Callable[[], list[nft_wire.Part]]
    """The whole table, for a sandbox whose rules somebody changed."""
    withdrawn: frozenset[str]
    """Backends that take no new connections: their datagram flows end now."""
    gone: frozenset[str]
    """Backends that exist no more: all their connections end now."""

    def apply(self) -> list[Connection]:
        """Returns the connections that were cut, whose clients do not know it yet."""
        if self.parts:
            try:
                self.netfilter.run_batch(partial(nft_wire.batch, self.parts))
            except KernelRefusal:
                self.netfilter.run_batch(partial(nft_wire.batch, self.whole()))
        if not (self.withdrawn or self.gone):
            return []
        return conntrack.cut(self.netfilter, self.withdrawn, self.gone)


def rule_batches(live: LiveSandbox, table: str) -> list[Callable[[int], tuple[bytes, int]]]:
    """Transactions that write all of a sandbox's rules anew, and show verification how they should look."""
    wanted = vip_rules(live, table, live.vips)
    return [partial(nft_wire.batch, parts(fresh=False)) for parts in (wanted.vip_parts, wanted.timeout_parts)]


def vip_rules(live: LiveSandbox, table: str, vips: Mapping[str, Vips]) -> VipRules:
    """All of one sandbox's rules. `vips`: by network."""
    together = {vip: backends for known in vips.values() for vip, backends in known.items()}
    ipv6 = any(":" in address for attachment in live.sandbox.attachments for address in attachment.addresses)
    return VipRules(table, live.sandbox.sandbox_id, together, live.sockets.dns_ports, ipv6)


Difference = plan.MapPlan[str, tuple[str, ...]]


class Differences:
    """Of what sandboxes' rules hold to what is wanted. Those that share both, as most on a network do, share it too."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], tuple[Vips, Vips, Difference]] = {}
        """By identity; the two are kept, so that no others get theirs."""

    def between(self, wanted: Vips, known: Vips) -> Difference:
        key = (id(wanted), id(known))
        if key not in self._found:
            self._found[key] = wanted, known, plan.diff(wanted, known)
        return self._found[key][2]


def vip_parts(live: LiveSandbox, table: str, difference: Difference, known: Vips) -> list[nft_wire.Part]:
    """What brings one sandbox's rules from what they hold, `known`, to what is wanted."""
    parts: list[nft_wire.Part] = []
    for vip in difference.remove:
        parts += nft_wire.remove_vip(table, vip)
    for set_id, (vip, backends) in enumerate(difference.put, 3):
        seed = live.sandbox.sandbox_id
        parts += nft_wire.put_vip(table, seed, vip, backends, exists=vip in known, set_id=set_id)
    return parts


def whole_table(live: LiveSandbox, table: str, network_id: str, wanted: Vips) -> list[nft_wire.Part]:
    """All of one sandbox's rules, with this network's VIPs as wanted."""
    return vip_rules(live, table, {**live.vips, network_id: wanted}).vip_parts(fresh=False)
