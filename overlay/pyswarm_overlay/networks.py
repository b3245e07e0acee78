"""The networks that this host has tables of: which are needed here, and bringing kernel and sandboxes to their state.

A network is synced under its lock: tunnels, then the VIPs of every sandbox on it, from what was written last to what
the newest table says. Callers that waited for the lock find the work done. A sandbox that was built from an older
table is caught up with by its builder, who compares afterwards.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from pyswarm_common.errors import NotFound, Unavailable

from .checks import check_records, check_table, check_unchanged
from .core import names
from .core.closing_packets import Connection
from .core.tables import TableState
from .drivers.drivers import Drivers
from .drivers.interface import NetworkDevices
from .ground import Ground
from .kernel import libc, netns, resets, rtnl
from .kernel.netlink import Netlink
from .network import Devices, Network
from .policy import Guard, Policies
from .records import Records
from .refusals import kernel_errors
from .resolving.link import ResolverLink
from .sandbox import Differences, LiveSandbox, VipChange, Vips, vip_parts, whole_table
from .types import NetworkTable, TableDelta

log = logging.getLogger(__name__)

_NO_VIPS: Vips = {}


class Networks:
    """`lives` tells the sandboxes that are up; `ready` is waited for before a network's devices are made."""

    def __init__(
        self,
        ground: Ground,
        records: Records,
        lives: Callable[[], Iterable[LiveSandbox]],
        ready: Callable[[NetworkTable], Awaitable[None]],
        resolver: ResolverLink,
    ) -> None:
        self._ground = ground
        self._records = records
        self._lives = lives
        self._ready = ready
        self._resolver = resolver
        self._rules_table = names.sandbox_table(ground.config.prefix)
        self._by_id: dict[str, Network] = {}
        self.drivers = Drivers(ground, lambda: [network.state.table for network in self.all()])
        self.policies = Policies(names.policy_table(ground.config.prefix), self._state_of, ground.threads)

    def load(self) -> None:
        """The tables of an earlier daemon."""
        self.drivers.load()
        for table in self._records.networks():
            network = self._by_id[table.network_id] = Network(TableState.of(table))
            network.synced = network.state
            self._resolver.put(network.state)

    def ids(self) -> list[str]:
        return sorted(self._by_id)

    def all(self) -> list[Network]:
        return list(self._by_id.values())

    def find(self, network_id: str) -> Network | None:
        return self._by_id.get(network_id)

    def _state_of(self, network_id: str) -> TableState | None:
        network = self._by_id.get(network_id)
        return None if network is None else network.state

    def get(self, network_id: str) -> Network:
        network = self._by_id.get(network_id)
        if network is None:
            raise NotFound(f"network {network_id} is not known on this node yet: apply its table first")
        return network

    def peers(self) -> set[str]:
        """The nodes that any table tells of."""
        return {record.node_address for network in self._by_id.values() for record in network.state.endpoints.values()}

    def ingress(self) -> Network | None:
        return next((network for network in self._by_id.values() if network.state.table.ingress), None)

    def ingress_addresses(self) -> frozenset[str]:
        network = self.ingress()
        return frozenset() if network is None else network.state.addresses

    async def apply_table(self, table: NetworkTable) -> None:
        check_table(table)
        network = self._by_id.get(table.network_id)
        if network is None:
            network = self._by_id[table.network_id] = Network(TableState.of(table))
        else:
            check_unchanged(network.state.table, table)
            network.replace(TableState.of(table))
        await self._sync_all(network)

    async def apply_delta(self, delta: TableDelta) -> Network | None:
        """The changed network, or None when the delta does not follow what we hold."""
        check_records(delta.network_id, delta.upsert_endpoints, delta.upsert_services)
        network = self._by_id.get(delta.network_id)
        state = None if network is None else network.state.after(delta)
        if network is None or state is None:
            return None
        network.replace(state)
        await self._sync_all(network)
        return network

    async def _sync_all(self, network: Network) -> None:
        """For a caller who says afterwards that the table is in the kernel."""
        is_used = any(network.network_id in live.network_ids for live in self._lives())
        self._resolver.put(network.state)
        asked = self._resolver.ask() if is_used else None  # answered while the kernel's tables are written
        if not await self.sync(network):
            raise Unavailable(
                f"network {network.state.table.name}: the VIPs of a sandbox could not be written: try again"
            )
        if is_used:
            await self._resolver.sync(asked)

    def forget(self, network: Network) -> None:
        self._by_id.pop(network.network_id, None)
        self._resolver.forget(network.network_id)
        self._records.forget_network(network.network_id)

    async def sync(self, network: Network) -> bool:
        """Bring tunnels and VIPs to the network's present state; whether every sandbox has its VIPs."""
        async with network.lock:
            state = network.state
            self._resolver.put(state)
            withdrawn, gone = state.turned_over(network.synced)
            lives = [live for live in self._lives() if network.network_id in live.network_ids]
            wanted = {live.sandbox.sandbox_id: live.vips_of(state) for live in lives}
            vips = self._vip_changes(network, lives, wanted, withdrawn, gone)
            changes: list[VipChange | Guard] = [*vips, *self.policies.changed(state, lives)]
            with kernel_errors(f"network {state.table.name}"):
                failed = await self._ground.threads.run(partial(self._write, network.devices, state, changes))
            for live in lives:
                if live.sandbox.sandbox_id not in failed:
                    live.vips[network.network_id] = wanted[live.sandbox.sandbox_id]
            if not failed:
                network.synced = state
            return not failed

    def _vip_changes(
        self,
        network: Network,
        lives: Iterable[LiveSandbox],
        wanted: Mapping[str, Vips],
        withdrawn: frozenset[str],
        gone: frozenset[str],
    ) -> list[VipChange]:
        """`wanted`: the VIPs of each sandbox."""
        table, differences, changes = self._rules_table, Differences(), []
        for live in lives:
            sandbox_id, netfilter = live.sandbox.sandbox_id, live.sockets.netfilter
            known = live.vips.get(network.network_id, _NO_VIPS)
            parts = vip_parts(live, table, differences.between(wanted[sandbox_id], known), known)
            if parts or withdrawn or gone:
                whole = partial(whole_table, live, table, network.network_id, wanted[sandbox_id])
                changes.append(VipChange(sandbox_id, netfilter, parts, whole, withdrawn, gone))
        return changes

    def _write(
        self, devices: NetworkDevices | None, state: TableState, changes: list[VipChange | Guard]
    ) -> dict[str, None]:
        """Blocking; returns the sandboxes that could not be written, which holds up no other. One that has just gone
        has no rules."""
        failed: dict[str, None] = {}
        if devices is not None:
            devices.sync_tunnels(state.tunnels(self._ground.config.node_address))
        cut: list[tuple[Netlink, list[Connection]]] = []
        for change in changes:
            try:
                if isinstance(change, VipChange):
                    cut.append((change.netfilter, change.apply()))
                else:
                    change.apply()
            except OSError as error:
                if error.errno == errno.EBADF:
                    continue  # its socket was closed meanwhile: it is going
                log.warning("rules of sandbox %s were not updated: %s", change.sandbox_id, error)
                failed[change.sandbox_id] = None
        resets.reset(cut)
        self._records.save_network(state.to_table())  # only now: what is not saved, the next daemon does again
        return failed

    async def use(self, network: Network, user: str) -> NetworkDevices:
        """The network's devices, made if this is their first user; made again if somebody removed the one that this
        user's interface is to be made on."""
        async with network.lock:
            if network.devices is None:
                await self._ready(network.state.table)
                network.devices = await self._ground.threads.run(partial(self._open, network.state))
            elif isinstance(network.devices, Devices) and not network.devices.is_there():
                await self._ground.threads.run(partial(self._verify, network.devices, network.state, set()))
            network.users.add(user)
            return network.devices

    def _open(self, state: TableState) -> NetworkDevices:
        devices = self.drivers.open(state)
        try:
            devices.ensure()
            devices.sync_tunnels(state.tunnels(self._ground.config.node_address))
        except BaseException:
            devices.remove()
            raise
        return devices

    async def release(self, network: Network, user: str) -> None:
        """Without users there are no devices."""
        async with network.lock:
            network.users.discard(user)
            if network.users or network.devices is None:
                return
            await self._ground.threads.run(network.devices.remove)
            network.devices = None

    async def verify(self, network: Network, spared_ports: set[str]) -> list[str]:
        """Repair the devices; ports of nobody go, but for the spared ones."""
        async with network.lock:
            if network.devices is None:
                return []
            ports = spared_ports | {names.network_port(user, network.network_id) for user in network.users}
            work = partial(self._verify, network.devices, network.state, ports)
            found = await self._ground.threads.run(work)
        return [f"network {network.state.table.name}: {problem}" for problem in found]

    def _verify(self, devices: NetworkDevices, state: TableState, ports: set[str]) -> list[str]:
        found = []
        if not devices.is_kept():
            devices.keep()
            found.append("its namespace was not mounted")
        devices.enter()
        found += devices.ensure()
        found += devices.sync_tunnels(state.tunnels(self._ground.config.node_address))
        for port in sorted(devices.ports() - ports):
            devices.remove_port(port)
            found.append(f"removed stray port {port}")
        return found

    async def remove_strays(self) -> list[str]:
        """Namespaces of networks that nobody here uses."""
        directory, threads = self._ground.network_dir, self._ground.threads
        done: list[str] = []
        for path in await threads.run(lambda: sorted(directory.iterdir())):
            network = self._by_id.get(path.name)
            async with network.lock if network is not None else asyncio.Lock():
                if network is None or network.devices is None:
                    await threads.run(partial(_remove_at, path))
                    done.append(f"removed stray network {path.name}")
        return done + await self._remove_stray_interfaces()

    async def _remove_stray_interfaces(self) -> list[str]:
        """Those in the host's own namespace."""
        done: list[str] = []
        for network_id in self.drivers.known():
            network = self._by_id.get(network_id)
            async with network.lock if network is not None else asyncio.Lock():
                if network is None or network.devices is None:
                    forget = partial(self.drivers.remove_stray, network_id, is_forgotten=network is None)
                    done += await self._ground.threads.run(forget)
        return done

    async def close(self) -> None:
        for network in self._by_id.values():
            async with network.lock:
                if network.devices is not None:
                    network.devices.close()
                    network.devices = None


def _remove_at(path: Path) -> None:
    """A namespace that no daemon has open: the tunnel in it goes first."""
    fd = netns.open_existing(path)
    if fd is not None:
        libc.setns(fd)
        os.close(fd)
        netlink = Netlink()
        netlink.transact([rtnl.delete_link_named(names.VXLAN)])
        netlink.close()
    netns.remove(path)
