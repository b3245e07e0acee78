"""The drivers of this host: opens a network's devices, and gives out addresses where that is this node's business.

An address is given when a sandbox is attached and is the sandbox's until it is detached; it is kept in the sandbox's
own record, so who holds what follows from the sandboxes and nothing can leak. What a network was given here (a subnet,
a bridge) is kept in a file of its own until the network is forgotten. `networks` calls this with its locks held.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from ipaddress import ip_interface, ip_network
from pathlib import Path

import msgspec

from pyswarm_common.documents import Malformed, decode_json
from pyswarm_common.errors import AlreadyExists, Exhausted, FailedPrecondition
from pyswarm_common.files import remove_from_folder, write_whole
from pyswarm_common.network_options import (
    BRIDGE,
    MACVLAN,
    OVERLAY,
    bridge_options,
    is_encrypted,
    macvlan_options,
    mtu_of,
)
from pyswarm_overlay.core import names, subnets
from pyswarm_overlay.core.plan import WantedInterface
from pyswarm_overlay.core.tables import TableState
from pyswarm_overlay.encryption.sealed import SealedDevices
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import libc, links, netns, rtnl
from pyswarm_overlay.kernel.netlink import Netlink
from pyswarm_overlay.kernel.routes import read_routed_networks
from pyswarm_overlay.network import Devices, Network
from pyswarm_overlay.types import Attachment, NetworkTable, Sandbox

from .addresses import Pool, free_address, pools_of
from .bridge import BridgeDevices, BridgeTable
from .configs import Configs
from .interface import NetworkDevices
from .macvlan import MacvlanDevices
from .plugin_devices import PluginDevices
from .plugin_discovery import PluginPlaces
from .plugin_networks import PluginNetworks, has_ipam_plugin, is_plugin
from .settings import LocalRecord, Settings, settings_of

_FIRST_BRIDGE_SUBNET = "172.17.0.0/16"


class Drivers:
    """Of one host. `tables` tells all networks that it has tables of: their subnets are not taken for bridges."""

    def __init__(self, ground: Ground, tables: Callable[[], Iterable[NetworkTable]]) -> None:
        self._ground = ground
        self._tables = tables
        self._directory = ground.config.state_dir / "drivers"
        self._bridges = BridgeTable(ground)
        self._settings: dict[str, Settings] = {}
        self._records: dict[str, LocalRecord] = {}
        self._last: dict[str, int] = {}
        """The last address given, by subnet."""
        self.plugins = PluginNetworks(ground, PluginPlaces(ground.config.plugin_sockets, ground.config.plugin_specs))
        self._lock = threading.Lock()
        """Around choosing: two sandboxes may be the first on a network, or networks choose a subnet, at once.

        And around the records' files, whose folder goes with the last.
        """
        self.configs = Configs(ground.config.state_dir / "configs")

    # -- devices -------------------------------------------------------------------------------------------------------

    def open(self, state: TableState) -> NetworkDevices:
        """Blocking. The network's devices, not yet ensured."""
        table = state.table
        if table.driver in ("", OVERLAY):
            return (SealedDevices if is_encrypted(table.options) else Devices)(self._ground, state)
        settings = self._settle(table)
        if table.driver == BRIDGE:
            return self._open_bridge(settings)
        if table.driver == MACVLAN:
            return self._open_macvlan(settings)
        endpoints = partial(self.plugins.endpoints, table.network_id)
        return PluginDevices(self._ground, table.name, mtu_of(settings.options), endpoints)

    def _open_bridge(self, settings: Settings) -> BridgeDevices:
        record = self._records[settings.network_id]
        lengths = [ip_network(subnet).prefixlen for subnet in record.subnets]
        gateways = tuple(f"{gateway}/{length}" for gateway, length in zip(record.gateways, lengths, strict=False))
        options = bridge_options(settings.options)
        return BridgeDevices(self._ground, self._bridges, options, record.bridge, gateways)

    def _open_macvlan(self, settings: Settings) -> MacvlanDevices:
        name = self._own_name("m", settings.network_id)
        options = macvlan_options(settings.options)
        if not options.parent:
            with self._lock:
                self._save(LocalRecord(network_id=settings.network_id, driver=MACVLAN, bridge=name))
        return MacvlanDevices(self._ground, settings.name, options, name)

    def _own_name(self, kind: str, network_id: str) -> str:
        return f"{self._ground.config.prefix}-{kind}{names.short(network_id)}"

    # -- what a network is here ----------------------------------------------------------------------------------------

    def _settle(self, table: NetworkTable) -> Settings:
        """Blocking. Its settings on this node; a bridge gets its name and its subnet, once."""
        with self._lock:
            settings = self._read(table)
            pools = self.plugins.pools(table.network_id)
            if pools:
                gateways = tuple(pool.gateway.partition("/")[0] for pool in pools)
                subnets_here = tuple(pool.subnet for pool in pools)
                settings = replace(settings, subnets=subnets_here, gateways=gateways, ip_ranges=())
            if settings.driver == BRIDGE:
                record = self._records.get(settings.network_id)
                if record is None or (settings.subnets and record.subnets != settings.subnets):
                    self._save(self._new_bridge(settings))
            self._settings[settings.network_id] = settings
            return settings

    def _read(self, table: NetworkTable) -> Settings:
        """Blocking. What the user said, for the cluster or for this node."""
        return settings_of(table, self.configs.named(table.config_from) if table.config_from else None)

    def _new_bridge(self, settings: Settings) -> LocalRecord:
        name = bridge_options(settings.options).name or self._own_name("b", settings.network_id)
        known = self._records.get(settings.network_id)
        if (known is None or known.bridge != name) and rtnl.read_link(self._ground.netlink, name) is not None:
            raise AlreadyExists(
                f"network {settings.name}: an interface {name} exists on this node already: choose another "
                f"com.docker.network.bridge.name"
            )
        chosen = settings.subnets or (self._free_subnet(settings),)
        gateways = tuple(
            (settings.gateways[index] if index < len(settings.gateways) else "") or str(ip_network(subnet)[1])
            for index, subnet in enumerate(chosen)
        )
        return LocalRecord(
            network_id=settings.network_id, driver=BRIDGE, subnets=chosen, gateways=gateways, bridge=name
        )

    def _free_subnet(self, settings: Settings) -> str:
        taken = read_routed_networks(self._ground.netlink)
        taken.add(self._ground.gateway_subnet)
        taken.update(subnet for table in self._tables() for subnet in table.subnets)
        taken.update(subnet for record in self._records.values() for subnet in record.subnets)
        found = subnets.choose(_FIRST_BRIDGE_SUBNET, taken)
        if found is None:
            raise Exhausted(f"network {settings.name}: every private subnet is in use on this node: give it a subnet")
        return found

    # -- addresses -----------------------------------------------------------------------------------------------------

    async def place(self, sandbox: Sandbox, before: Sandbox | None, find: Callable[[str], Network]) -> Sandbox:
        """The sandbox with an address on each of its networks where this node gives them; `before`: as it was attached.

        Called with the sandbox's lock held. What was given is taken back by `leave`.
        """
        known = {a.network_id: a.addresses for a in before.attachments} if before is not None else {}
        if before is not None:
            staying = {attachment.network_id for attachment in sandbox.attachments}
            left = tuple(attachment for attachment in before.attachments if attachment.network_id not in staying)
            await self.leave(msgspec.structs.replace(before, attachments=left), find)
        attachments: list[Attachment] = []
        for attachment in sandbox.attachments:
            network = find(attachment.network_id)
            if network.state.table.driver in ("", OVERLAY):
                attachments.append(attachment)
                continue
            wanted = attachment.addresses or known.get(attachment.network_id, ())
            given = msgspec.structs.replace(attachment, addresses=wanted)
            is_fixed = bool(attachment.addresses)
            attachments.append(await self._place(network, given, sandbox.sandbox_id, is_fixed=is_fixed))
        return self._bound(msgspec.structs.replace(sandbox, attachments=tuple(attachments)))

    async def _place(self, network: Network, wanted: Attachment, sandbox_id: str, *, is_fixed: bool) -> Attachment:
        """With the addresses that it has on this network, which a plugin may have given."""
        table = network.state.table
        settings = await self._ground.threads.run(partial(self._read, table))
        peers = {record.node_address for record in network.state.endpoints.values()}
        addresses = wanted.addresses
        if has_ipam_plugin(settings):
            addresses = await self.plugins.place(settings, sandbox_id, addresses, peers)
            await self._ground.threads.run(partial(self._settle, table))
        else:
            await self._ground.threads.run(partial(self._settle, table))
            if network.local is not None:
                addresses = self._give(network, wanted.endpoint_id, addresses, is_fixed=is_fixed)
            if is_plugin(settings.driver):
                addresses = await self.plugins.place(settings, sandbox_id, addresses, peers)
        if network.local is not None:
            network.give(wanted.endpoint_id, addresses)
        return msgspec.structs.replace(wanted, addresses=addresses)

    def _give(self, network: Network, endpoint_id: str, wanted: tuple[str, ...], *, is_fixed: bool) -> tuple[str, ...]:
        """Those wanted if they can be had; if they are only what it had before, others will do."""
        assert network.local is not None
        table = network.state.table
        taken = {a for key, held in network.local.items() if key != endpoint_id for a in held}
        pools = self._pools(table.network_id)
        if wanted and all(_has(pools, address) and _bare(address) not in taken for address in wanted):
            addresses = wanted
        elif is_fixed and wanted:
            raise FailedPrecondition(
                f"network {table.name}: address {', '.join(map(_bare, wanted))} is in use on this node, or in none of "
                f"its subnets here ({', '.join(str(pool.subnet) for pool in pools)})"
            )
        else:
            addresses = tuple(self._free(table.name, pool, taken) for pool in pools)
        network.give(endpoint_id, addresses)
        return addresses

    def _pools(self, network_id: str) -> tuple[Pool, ...]:
        settings, record = self._settings[network_id], self._records.get(network_id)
        own_subnets = record.subnets if record is not None and record.subnets else settings.subnets
        gateways = record.gateways if record is not None and record.subnets else settings.gateways
        if not own_subnets:
            raise FailedPrecondition(
                f"network {settings.name} has no subnet on this node: give one to its configuration"
            )
        return pools_of(own_subnets, settings.ip_ranges, gateways, settings.auxiliary_addresses.values())

    def _free(self, network: str, pool: Pool, taken: set[str]) -> str:
        key = f"{pool.subnet} {pool.part}"
        found = free_address(pool, lambda text: _bare(text) in taken, self._last.get(key, 0))
        if found is None:
            raise Exhausted(f"network {network}: no free address left on this node in {pool.part}")
        self._last[key] = int(ip_interface(found).ip)
        return found

    def _bound(self, sandbox: Sandbox) -> Sandbox:
        """Its published ports, at the address of the host that a bridge of it says."""
        found = [self._settings.get(attachment.network_id) for attachment in sandbox.attachments]
        bindings = [bridge_options(s.options).host_binding for s in found if s is not None and s.driver == BRIDGE]
        binding = next((binding for binding in bindings if binding), "")
        if not binding or not sandbox.host_ports:
            return sandbox
        ports = tuple(msgspec.structs.replace(port, host_ip=port.host_ip or binding) for port in sandbox.host_ports)
        return msgspec.structs.replace(sandbox, host_ports=ports)

    async def leave(self, sandbox: Sandbox, find: Callable[[str], Network | None]) -> None:
        """Take back what was given to a sandbox on its networks."""
        for attachment in sandbox.attachments:
            network = find(attachment.network_id)
            if network is not None and network.local is not None:
                network.give(attachment.endpoint_id, ())
            await self.plugins.leave(attachment.network_id, sandbox.sandbox_id)

    async def renew(self, sandbox: Sandbox) -> None:
        """Have plugins make again what somebody removed."""
        for attachment in sandbox.attachments:
            await self.plugins.renew(attachment.network_id, sandbox.sandbox_id)

    async def complete(self, sandbox: Sandbox, path: Path, interfaces: tuple[WantedInterface, ...]) -> None:
        """The static routes that plugins want in a sandbox that is built."""
        routes: list[tuple[str, str, str]] = []
        for interface in interfaces:
            entry = self.plugins.endpoint(interface.network_id or "", sandbox.sandbox_id)
            if entry is not None and entry.joined is not None:
                routes += [(interface.name, destination, hop) for destination, hop in entry.joined.routes]
        if routes:
            await self._ground.threads.run(partial(_add_routes, path, routes))

    def default_routes(self, sandbox: Sandbox) -> dict[str, tuple[str, ...]]:
        """Network -> the gateways that this sandbox's way out is by, in place of the one that every sandbox has.

        A routed bridge is one always; a macvlan only where nothing is published, since what comes in by the host must
        go back by the host.
        """
        if not sandbox.egress:
            return {}
        for attachment in sandbox.attachments:
            settings = self._settings.get(attachment.network_id)
            gateways = () if settings is None or settings.internal else self._gateways_of(settings, sandbox)
            if gateways or (settings is not None and self._has_own_way_out(settings, sandbox)):
                return {attachment.network_id: gateways}
        return {}

    def _gateways_of(self, settings: Settings, sandbox: Sandbox) -> tuple[str, ...]:
        if settings.driver == BRIDGE and not bridge_options(settings.options).has_masquerade:
            return self._records[settings.network_id].gateways
        if settings.driver == MACVLAN and macvlan_options(settings.options).parent and not sandbox.host_ports:
            return tuple(gateway for gateway in settings.gateways if gateway)
        entry = self.plugins.endpoint(settings.network_id, sandbox.sandbox_id)
        return () if entry is None or entry.joined is None or sandbox.host_ports else entry.joined.gateways

    def _has_own_way_out(self, settings: Settings, sandbox: Sandbox) -> bool:
        entry = self.plugins.endpoint(settings.network_id, sandbox.sandbox_id)
        return entry is not None and entry.joined is not None and entry.joined.has_own_way_out

    # -- the disk ------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """What an earlier daemon gave to networks, and asked plugins for."""
        self.plugins.load()
        for path in sorted(self._directory.glob("*.json")):
            try:
                record = decode_json(path.read_bytes(), LocalRecord)
            except (OSError, Malformed):
                path.unlink(missing_ok=True)
            else:
                self._records[record.network_id] = record

    def _save(self, record: LocalRecord) -> None:
        """Before anything is made that carries the name; with the lock held."""
        if self._records.get(record.network_id) != record:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self._file(record.network_id), msgspec.json.encode(record))
            self._records[record.network_id] = record

    def _file(self, network_id: str) -> Path:
        return self._directory / f"{network_id[:64]}-{names.short(network_id)}.json"

    def known(self) -> list[str]:
        """Networks that have, or had, an interface of ours in the host's namespace."""
        return sorted(self._records)

    def remove_stray(self, network_id: str, *, is_forgotten: bool) -> list[str]:
        """Blocking. The interface of a network that has no devices here; its record too, once nobody knows it."""
        record = self._records[network_id]
        done = []
        known = rtnl.read_links(self._ground.netlink)
        if record.bridge in known:
            start, index = f"{self._ground.config.prefix}-p", known[record.bridge].index
            ports = [link.name for link in known.values() if link.master == index and link.name.startswith(start)]
            self._ground.netlink.transact([rtnl.delete_link_named(name) for name in (*ports, record.bridge)])
            self._bridges.drop(record.bridge)
            done.append(f"removed stray bridge {record.bridge}")
        if is_forgotten:
            with self._lock:
                remove_from_folder(self._file(network_id))
                self._records.pop(network_id)
            self._settings.pop(network_id, None)
        return done


def _add_routes(path: Path, routes: list[tuple[str, str, str]]) -> None:
    """In a thread that ends with the job: it enters the sandbox."""
    fd = netns.open_existing(path)
    if fd is None:
        return
    libc.setns(fd)
    os.close(fd)
    netlink = Netlink()
    try:
        index = {name: link.index for name, link in rtnl.read_links(netlink).items()}
        netlink.transact([links.new_route(to, hop, index[name]) for name, to, hop in routes if name in index])
    finally:
        netlink.close()


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _has(pools: tuple[Pool, ...], address: str) -> bool:
    try:
        return any(pool.contains(address) for pool in pools)
    except ValueError:
        return False
