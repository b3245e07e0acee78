"""One overlay network on this host: its namespace with a VXLAN device, programmed from the table.

The devices exist only while a local sandbox, or this host's own ingress address, needs them. Nothing learns and nothing
floods. Each sandbox's interface is a macvlan on the VXLAN device: frames between them pass within the kernel's macvlan,
others leave by a permanent tunnel entry, and ARP for those is answered from permanent neighbours. With the VXLAN device
all interfaces on it go, so an address of its own that changed is written to the one that is there. All methods here
block; `OverlayHost` calls them in threads, holding the network's lock.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from ipaddress import ip_address

from pyswarm_common.addresses import is_ipv6
from pyswarm_common.errors import FailedPrecondition

from .core.local import is_local, localised
from .core.names import VXLAN, mac_of
from .core.plan import diff
from .core.tables import TableState, Tunnels
from .drivers.interface import NetworkDevices
from .ground import Ground
from .kernel import libc, links, netns, rtnl, sysctl
from .kernel.netlink import KernelRefusal, Netlink

_IPV6_LEAST_MTU = 1280
_NO_TUNNELS = Tunnels({}, {})


class Devices:
    """The namespace of one network, open. `tunnels` is what we last wrote."""

    def __init__(self, ground: Ground, state: TableState) -> None:
        self._ground = ground
        self._own_mtu = state.table.mtu
        self._vni = state.table.vni
        self._name = state.table.name
        self._has_ipv6 = any(is_ipv6(subnet) for subnet in state.table.subnets)
        self._path = ground.network_path(state.table.network_id)
        self.netlink = self._enter()
        self.vxlan = 0
        self.tunnels = _NO_TUNNELS

    @property
    def mtu(self) -> int:
        """The network's own, or what the underlay leaves now."""
        return self._own_mtu or self._ground.overlay_mtu

    @property
    def tunnel(self) -> tuple[int, str, int, bool, bool]:
        """As `core.facts` tells of one: VNI, own address, UDP port, learning, proxy."""
        return self._vni, self._own_end, self._ground.config.data_path_port, False, True

    def _enter(self) -> Netlink:
        """Take the namespace over, or make it. This thread stays in it, so it must end with the job."""
        fd = netns.open_existing(self._path)
        if fd is None:
            fd = netns.create(self._path)
        else:
            libc.setns(fd)
        self._fd = fd
        return Netlink()

    def ensure(self) -> list[str]:
        """Bring the devices into being; says what it had to do. Runs in a thread inside the namespace."""
        done: list[str] = []
        found = rtnl.read_links(self.netlink)
        if not found["lo"].up:
            self.netlink.transact([rtnl.set_link_up(1)])
        if VXLAN not in found:
            sysctl.set_up_new_interfaces(ipv6=False)
            renamed = [link.name for link in found.values() if link.kind == "vxlan"]  # it has the VNI
            self.netlink.transact([rtnl.delete_link_named(name) for name in renamed])
            self._create_vxlan()
            done.append(f"device {VXLAN} was missing")
        elif found[VXLAN].tunnel_address != self._own_end:
            self._readdress(found[VXLAN])
            done.append(f"device {VXLAN} was of another node address")
        vxlan = rtnl.read_link(self.netlink, VXLAN)
        assert vxlan is not None, "a device that was just made or seen"
        self.vxlan = vxlan.index
        self.adjust_mtu()
        if self._has_ipv6:
            self._allow_ipv6_neighbours()
        if not vxlan.up:
            self.netlink.transact([rtnl.set_link_up(vxlan.index)])
            done = done or [f"device {VXLAN} was down"]
        self.tunnels = Tunnels(rtnl.read_fdb(self.netlink, self.vxlan), rtnl.read_neighbours(self.netlink, self.vxlan))
        return done

    @property
    def _own_end(self) -> str:
        """The tunnel's own address."""
        return str(ip_address(self._ground.config.node_address))

    def _create_vxlan(self) -> None:
        config = self._ground.config
        message = rtnl.new_vxlan(VXLAN, self._vni, config.node_address, config.data_path_port, self.mtu, self._fd)
        self._ground.netlink.transact([message])

    def _readdress(self, vxlan: rtnl.Link) -> None:
        """The interfaces on it stay, unless the address is of the other family, or was none."""
        try:
            self.netlink.transact([rtnl.set_vxlan_local(vxlan.index, self._own_end)])
        except (KernelRefusal, ValueError):
            self.netlink.transact([rtnl.delete_link_named(VXLAN)])
            self._create_vxlan()

    def _allow_ipv6_neighbours(self) -> None:
        """The tunnel's device answers for neighbours only where IPv6 is on; it has no address of its own."""
        if self.mtu < _IPV6_LEAST_MTU:
            raise FailedPrecondition(
                f"network {self._name} has an IPv6 subnet, which needs an MTU of at least {_IPV6_LEAST_MTU}, "
                f"but its MTU is {self.mtu}: raise the MTU of the network or of the nodes' underlay"
            )
        sysctl.allow_ipv6(VXLAN)

    def sync_tunnels(self, wanted: Tunnels) -> list[str]:
        """Write the difference to what was last written (or read)."""
        wanted = self.as_sent(wanted)
        forwarding = diff(wanted.forwarding, self.tunnels.forwarding)
        neighbours = diff(wanted.neighbours, self.tunnels.neighbours)
        messages = [rtnl.delete_neighbour(self.vxlan, address) for address in neighbours.remove]
        messages += [rtnl.delete_fdb(self.vxlan, mac) for mac in forwarding.remove]
        messages += [rtnl.new_fdb(self.vxlan, mac, remote) for mac, remote in forwarding.put]
        messages += [rtnl.new_neighbour(self.vxlan, address, mac) for address, mac in neighbours.put]
        self.netlink.transact(messages)
        self.tunnels = wanted
        return [message.what for message in messages]

    def as_sent(self, tunnels: Tunnels) -> Tunnels:
        """With the addresses that packets to the peers really have."""
        return tunnels

    def own_mac(self, port: str, mac: str, /) -> str:
        """As it was derived: peers derive it too."""
        return mac

    def join(self, _port: str, peer: rtnl.VethEnd, /) -> None:
        self.netlink.transact([links.new_macvlan(self.vxlan, "bridge", peer)])

    def adjust_mtu(self) -> None:
        """Of the tunnel, which the interfaces on it must not exceed: the kernel makes them smaller, never larger."""
        vxlan = rtnl.read_link(self.netlink, VXLAN)
        if vxlan is not None and vxlan.mtu != self.mtu:
            self.netlink.transact([rtnl.set_mtu(vxlan.index, self.mtu)])

    def has_port(self, _port: str, /) -> bool:
        """There is nothing outside of the sandbox that could be missing, but the tunnel, with which all goes."""
        return self.is_there()

    def is_there(self) -> bool:
        """Whether interfaces can be made; takes microseconds."""
        vxlan = rtnl.read_link(self.netlink, VXLAN)
        return vxlan is not None and vxlan.index == self.vxlan

    def remove_port(self, _port: str, /) -> None:
        """What is in a sandbox's namespace goes with it."""

    def ports(self) -> set[str]:
        return set()

    def remove(self) -> None:
        """The tunnel goes first and for certain: its VNI must be free when this returns."""
        with suppress(OSError):
            self.netlink.transact([rtnl.delete_link_named(VXLAN)])
        self.close()
        netns.remove(self._path)

    def close(self) -> None:
        self.netlink.close()
        os.close(self._fd)

    def enter(self) -> None:
        """Move the calling thread into this namespace."""
        libc.setns(self._fd)

    def is_kept(self) -> bool:
        """Whether the path still leads to this namespace (somebody may have unmounted it)."""
        fd = netns.open_existing(self._path)
        if fd is None:
            return False
        try:
            return os.path.sameopenfile(fd, self._fd)
        finally:
            os.close(fd)

    def keep(self) -> None:
        """Mount this namespace at its path again."""
        netns.remove(self._path)
        netns.keep(self._fd, self._path)


class Network:
    """A network that this host has a table of, whether it has devices or not."""

    def __init__(self, state: TableState) -> None:
        self.local: dict[str, tuple[str, ...]] | None = {} if is_local(state.table) else None
        """Endpoint -> the addresses that this node gave it; None where the managers give them."""
        self.replace(state)
        self.lock = asyncio.Lock()
        self.users: set[str] = set()
        self.devices: NetworkDevices | None = None
        self.synced: TableState | None = None
        """What the sandboxes on this network were last brought to, all of them."""

    @property
    def network_id(self) -> str:
        return self.state.table.network_id

    def replace(self, state: TableState) -> None:
        self.state = state if self.local is None else localised(state, self.local)

    def give(self, endpoint_id: str, addresses: tuple[str, ...]) -> None:
        """Its addresses, with prefix length, on a network whose addresses are this node's to give; none: take back."""
        assert self.local is not None, "addresses of a network that the managers give them on"
        if addresses:
            self.local[endpoint_id] = tuple(address.partition("/")[0] for address in addresses)
        else:
            self.local.pop(endpoint_id, None)
        self.replace(self.state)

    def mac(self, addresses: tuple[str, ...]) -> str:
        """The table may say otherwise than the derivation: peers were told the same."""
        plain = {address.partition("/")[0] for address in addresses}
        for record in self.state.endpoints.values():
            if record.mac and plain.intersection(record.addresses):
                return record.mac.lower()
        return mac_of(addresses)
