"""One host's networks: what callers want, brought into the kernel and kept there.

`OverlayHost` is the only thing others use. It holds the last tables and the sandboxes that are up, decides who waits
for whom, and leaves the work to `network`, `sandbox`, `publisher` and `resolver`. Everything is level-triggered: each
change is a comparison of wanted with what was written, so a step that was missed is made up by the next one.

Locks: one per sandbox (attach, detach and repair of one sandbox follow one another), then one per network (its
devices and the VIPs of its sandboxes). They are always taken in this order.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from ipaddress import ip_interface
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition, InvalidArgument, NotFound, PyswarmError, Unavailable

from . import preflight
from .core import names
from .core.dns_answer import View
from .core.tables import TableState
from .gateway import Gateway, IngressDevice
from .ground import Ground, underlay_mtu
from .kernel import libc, netns, rtnl
from .kernel.netlink import NETLINK_NETFILTER, Netlink
from .kernel.nft import Context
from .kernel.threads import Threads
from .locks import KeyedLocks
from .network import Devices, Network
from .publisher import Publisher
from .records import IngressRecord, Records, SandboxRecord
from .resolver import Resolver, Upstreams
from .sandbox import Builder, LiveSandbox, Sockets, VipChange, interfaces_of, vip_parts, whole_table
from .types import IngressPort, NetworkTable, OverlayConfig, Sandbox, TableDelta

log = logging.getLogger(__name__)

_HOST_USER = "@host"
"""Stands for this host itself among the users of the ingress network; no sandbox id begins with @."""
_MAX_DYING = 10_000


class OverlayHost:
    """The networks of the host (or lab host) in whose namespaces this process runs."""

    def __init__(self, ground: Ground) -> None:
        """Use `open`."""
        self._ground = ground
        self._records = Records(ground.config.state_dir)
        self._networks: dict[str, Network] = {}
        self._known: dict[str, SandboxRecord] = {}
        self._live: dict[str, LiveSandbox] = {}
        self._dying: set[str] = set()
        """Ports of sandboxes detached since the last verification."""
        self._locks = KeyedLocks()
        self._ingress_lock = asyncio.Lock()
        self._gateway = Gateway(ground)
        self._ingress_device = IngressDevice(ground)
        self._publisher = Publisher(ground, self._gateways, self._ingress_addresses)
        self._resolver = Resolver(Upstreams(ground.config.upstream_dns))
        self._table = names.sandbox_table(ground.config.prefix)

    # -- life of the host ------------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, config: OverlayConfig) -> OverlayHost:
        """Check the kernel, take over what an earlier daemon left, finish or remove what it left half made."""
        threads = Threads()
        await threads.run(partial(preflight.check, config))
        host = cls(await threads.run(partial(_ground, config, threads)))
        try:
            with _kernel_errors("this host's networks"):
                await host._take_over()
        except BaseException:
            await host.close()
            raise
        return host

    async def _take_over(self) -> None:
        for table in self._records.networks():
            self._networks[table.network_id] = Network(TableState.of(table))
        await self._ground.threads.run(self._gateway.ensure)
        for record in self._records.sandboxes():
            self._adopt(record)
        results = await asyncio.gather(*(self._revive(record) for record in list(self._known.values())))
        for problem in filter(None, results):
            log.warning("%s", problem)
        await self._set_ingress(self._records.ingress())
        await self._publisher.start()
        await self._remove_strays()

    def _adopt(self, record: SandboxRecord) -> None:
        """A sandbox without a namespace died with the host (or was never made): its record goes."""
        path = self._ground.sandbox_path(record.sandbox.sandbox_id)
        if not netns.exists(path):
            self._records.forget_sandbox(record.sandbox.sandbox_id)
            return
        if record.gateway_address is not None and not self._gateway.claim(record.gateway_address):
            record = SandboxRecord(sandbox=record.sandbox)
        self._known[record.sandbox.sandbox_id] = record

    async def _revive(self, record: SandboxRecord) -> str | None:
        """Bring a sandbox of an earlier daemon up again; one that cannot be now waits for its next `attach`."""
        try:
            await self.attach(record.sandbox)
        except PyswarmError as error:
            return f"sandbox {record.sandbox.sandbox_id} was not taken over: {error}"
        return None

    async def _remove_strays(self) -> list[str]:
        """What carries our names and belongs to nothing we know."""
        done: list[str] = []
        threads, ground = self._ground.threads, self._ground
        for name in await threads.run(partial(_names_in, ground.sandbox_dir)):
            async with self._locks.hold(name):
                if name not in self._known:
                    await threads.run(partial(netns.remove, ground.sandbox_dir / name))
                    done.append(f"removed stray sandbox {name}")
        for name in await threads.run(partial(_names_in, ground.network_dir)):
            network = self._networks.get(name)
            async with network.lock if network is not None else asyncio.Lock():
                if network is None or network.devices is None:
                    await threads.run(partial(_remove_network_at, ground.network_dir / name))
                    done.append(f"removed stray network {name}")
        return done + await threads.run(self._remove_stray_ports)

    def _remove_stray_ports(self) -> list[str]:
        """Blocking."""
        done: list[str] = []
        wanted = {names.gateway_port(self._ground.config.prefix, sandbox_id) for sandbox_id in self._known}
        for port in sorted(self._gateway.ports() - wanted - self._dying):
            self._gateway.remove_port(port)
            done.append(f"removed stray port {port}")
        return done

    async def close(self) -> None:
        """Let go of sockets and descriptors; the data plane stays as it is."""
        await self._resolver.close()
        self._publisher.close()
        for network in self._networks.values():
            async with network.lock:
                if network.devices is not None:
                    network.devices.close()
                    network.devices = None
        await self._ground.threads.run(self._close_sockets)

    def _close_sockets(self) -> None:
        for live in self._live.values():
            live.sockets.close()
        self._live.clear()
        self._ground.close()

    async def destroy(self) -> None:
        """Remove everything of ours from this host, then close."""
        for sandbox_id in list(self._known):
            await self.detach(sandbox_id)
        await self._set_ingress(IngressRecord())
        for network in list(self._networks.values()):
            await self._release(network, _HOST_USER)
        self._known.clear()
        self._networks.clear()
        await self._remove_strays()
        await self._ground.threads.run(self._destroy_rest)
        await self.close()

    def _destroy_rest(self) -> None:
        self._publisher.remove()
        self._ingress_device.remove()
        self._gateway.remove()
        for directory in (self._ground.sandbox_dir, self._ground.network_dir):
            netns.remove_directory(directory)
        self._records.remove_all()

    def networks(self) -> list[str]:
        """Every network that we have a table of, also those of an earlier daemon: remove what is no longer wanted."""
        return sorted(self._networks)

    def sandboxes(self) -> list[str]:
        """Every sandbox of ours, also those of an earlier daemon that are not up yet."""
        return sorted(self._known)

    # -- tables ----------------------------------------------------------------------------------------------------

    async def apply_table(self, table: NetworkTable) -> None:
        """Take a network's full state."""
        _check_table(table)
        network = self._networks.get(table.network_id)
        if network is None:
            network = self._networks[table.network_id] = Network(TableState.of(table))
        else:
            _check_unchanged(network.state.table, table)
            network.replace(TableState.of(table))
        await self._sync_network(network)
        if table.ingress:
            await self._set_ingress(self._publisher.ingress)

    async def apply_delta(self, delta: TableDelta) -> bool:
        """Take an increment; False when it does not start at the version we hold: apply the full table then."""
        network = self._networks.get(delta.network_id)
        state = None if network is None else network.state.after(delta)
        if network is None or state is None:
            return False
        network.replace(state)
        await self._sync_network(network)
        if state.table.ingress:
            await self._publisher.sync()
        return True

    async def remove_network(self, network_id: str) -> None:
        network = self._networks.get(network_id)
        if network is None:
            return
        if network.users - {_HOST_USER}:
            raise FailedPrecondition(
                f"network {network.state.table.name} is in use by {len(network.users)} sandboxes: detach them first"
            )
        del self._networks[network_id]
        if network.state.table.ingress:
            await self._set_ingress(self._publisher.ingress)
        await self._release(network, _HOST_USER)
        self._records.forget_network(network_id)

    async def _sync_network(self, network: Network) -> None:
        """Bring tunnels and VIPs to the network's present state; callers that waited share the work."""
        async with network.lock:
            state = network.state
            withdrawn, gone = network.turn_over()
            lives = [live for live in self._live.values() if network.network_id in live.network_ids]
            changes = self._vip_changes(network, lives, withdrawn, gone)
            work = partial(_write_network, self._ground, network.devices, state, self._records, changes)
            with _kernel_errors(f"network {state.table.name}"):
                await self._ground.threads.run(work)
            for live in lives:
                live.vips[network.network_id] = state.vips

    def _vip_changes(
        self, network: Network, lives: Iterable[LiveSandbox], withdrawn: frozenset[str], gone: frozenset[str]
    ) -> list[VipChange]:
        wanted = network.state.vips
        changes = []
        for live in lives:
            parts = vip_parts(live, self._table, network.network_id, wanted)
            if parts or withdrawn or gone:
                whole = partial(whole_table, live, self._table, network.network_id, wanted)
                sandbox_id, netfilter = live.sandbox.sandbox_id, live.sockets.netfilter
                changes.append(VipChange(sandbox_id, netfilter, parts, whole, withdrawn, gone))
        return changes

    async def _use(self, network: Network, user: str) -> Devices:
        """The network's devices, made if this is their first user."""
        async with network.lock:
            if network.devices is None:
                network.devices = await self._ground.threads.run(partial(_open_devices, self._ground, network.state))
            network.users.add(user)
            return network.devices

    async def _release(self, network: Network, user: str) -> None:
        """Without users there are no devices."""
        async with network.lock:
            network.users.discard(user)
            if network.users or network.devices is None:
                return
            await self._ground.threads.run(network.devices.remove)
            network.devices = None

    # -- sandboxes -------------------------------------------------------------------------------------------------

    async def attach(self, sandbox: Sandbox) -> str:
        """Make (or repair) a sandbox; when this returns it carries traffic, its names and VIPs work."""
        _check_sandbox(sandbox)
        async with self._locks.hold(sandbox.sandbox_id):
            for attachment in sandbox.attachments:
                self._network(attachment.network_id)
            fresh = sandbox.sandbox_id not in self._known
            try:
                with _kernel_errors(f"sandbox {sandbox.sandbox_id}"):
                    await self._attach(sandbox)
            except BaseException:
                if fresh:
                    await self._detach(sandbox.sandbox_id)
                raise
        return str(self._ground.sandbox_path(sandbox.sandbox_id))

    def _network(self, network_id: str) -> Network:
        network = self._networks.get(network_id)
        if network is None:
            raise NotFound(f"network {network_id} is not known on this node yet: apply its table first")
        return network

    async def _attach(self, sandbox: Sandbox) -> None:
        self._publisher.reserve(sandbox)
        before = self._live.get(sandbox.sandbox_id)
        record = self._record(sandbox)
        self._records.save_sandbox(record)
        await self._build(record)
        if before is not None:
            for network_id in set(before.network_ids).difference(self._live[sandbox.sandbox_id].network_ids):
                await self._release(self._networks[network_id], sandbox.sandbox_id)
        self._publisher.open_host_ports(sandbox, record.gateway_address)
        await self._publisher.sync()

    def _record(self, sandbox: Sandbox) -> SandboxRecord:
        """The sandbox with its gateway address: the one it has, or a new one if it needs one."""
        known = self._known.get(sandbox.sandbox_id)
        address = known.gateway_address if known is not None else None
        needed = sandbox.egress or bool(sandbox.host_ports)
        if needed and address is None:
            address = self._gateway.allocate()
        elif not needed and address is not None:
            self._gateway.release(address)
            address = None
        record = SandboxRecord(sandbox=sandbox, gateway_address=address)
        self._known[sandbox.sandbox_id] = record
        return record

    async def _build(self, record: SandboxRecord) -> list[str]:
        """Bring the sandbox to what its record says; a table that changed meanwhile is caught up with."""
        sandbox = record.sandbox
        networks = [self._network(attachment.network_id) for attachment in sandbox.attachments]
        devices = {network.network_id: await self._use(network, sandbox.sandbox_id) for network in networks}
        vips = {network.network_id: network.state.vips for network in networks}
        live = self._live.get(sandbox.sandbox_id)
        builder = self._builder(record, devices, vips, None if live is None else live.sockets)
        sockets, done = await self._ground.threads.run(builder.run)
        self._go_live(record, sockets, vips)
        for network in networks:
            if network.state.vips is not vips[network.network_id]:
                await self._sync_network(network)
        return done

    def _builder(
        self,
        record: SandboxRecord,
        devices: dict[str, Devices],
        vips: dict[str, dict[str, tuple[str, ...]]],
        sockets: Sockets | None,
    ) -> Builder:
        sandbox = record.sandbox
        places = {}
        for attachment in sandbox.attachments:
            network = self._networks[attachment.network_id]
            mtu, mac = devices[attachment.network_id].mtu, network.mac(attachment.addresses)
            places[attachment.network_id] = (network.state.table.ingress, mtu, mac)
        gateway = self._gateway
        return Builder(
            path=self._ground.sandbox_path(sandbox.sandbox_id),
            table=self._table,
            sandbox_id=sandbox.sandbox_id,
            interfaces=interfaces_of(
                sandbox, places, self._ground.config.prefix, record.gateway_address, gateway.address, gateway.mtu
            ),
            networks=devices,
            gateway=gateway,
            vips={vip: backends for table in vips.values() for vip, backends in table.items()},
            sockets=sockets,
        )

    def _go_live(self, record: SandboxRecord, sockets: Sockets, vips: dict[str, dict[str, tuple[str, ...]]]) -> None:
        sandbox_id = record.sandbox.sandbox_id
        is_new = sandbox_id not in self._live
        self._live[sandbox_id] = LiveSandbox(record, self._ground.sandbox_path(sandbox_id), sockets, vips)
        if is_new:
            self._resolver.add(sandbox_id, sockets.udp, sockets.tcp, partial(self._view, sandbox_id))

    def _view(self, sandbox_id: str) -> View:
        """What names a sandbox sees, now."""
        live = self._live[sandbox_id]
        networks = [self._networks[key].names for key in live.network_ids if key in self._networks]
        return View([found for found in networks if not found.state.table.ingress], live.own_names)

    def _gateways(self) -> dict[str, str]:
        """Endpoint -> gateway address, of the endpoints that are up here."""
        return {
            attachment.endpoint_id: live.record.gateway_address
            for live in self._live.values()
            if live.record.gateway_address is not None
            for attachment in live.sandbox.attachments
        }

    def _ingress_network(self) -> Network | None:
        return next((one for one in self._networks.values() if one.state.table.ingress), None)

    def _ingress_addresses(self) -> frozenset[str]:
        network = self._ingress_network()
        return frozenset() if network is None else network.state.addresses

    async def _repair(self, sandbox_id: str) -> list[str]:
        async with self._locks.hold(sandbox_id):
            record = self._known.get(sandbox_id)
            if record is None:
                return []
            with _kernel_errors(f"sandbox {sandbox_id}"):
                return await self._build(record)

    async def detach(self, sandbox_id: str) -> None:
        """Remove a sandbox and what only it needed; no-op if unknown."""
        names.check_id("sandbox", sandbox_id)
        async with self._locks.hold(sandbox_id):
            await self._detach(sandbox_id)

    async def _detach(self, sandbox_id: str) -> None:
        """The interfaces go with the namespace, in the kernel's own time: removing each would take it 50 ms."""
        live = self._live.pop(sandbox_id, None)
        record = self._known.get(sandbox_id)
        await self._resolver.remove(sandbox_id)
        self._publisher.release(sandbox_id)
        await self._publisher.sync()
        if len(self._dying) > _MAX_DYING:
            self._dying.clear()  # nobody verifies; at worst a later verification tells of ports that were on their way
        self._dying |= self._ports_of(sandbox_id, record)
        await self._ground.threads.run(partial(_remove_sandbox, self._ground.sandbox_path(sandbox_id), live))
        for network in list(self._networks.values()):
            if sandbox_id in network.users:
                await self._release(network, sandbox_id)
        if record is not None and record.gateway_address is not None:
            self._gateway.release(record.gateway_address)
        self._known.pop(sandbox_id, None)
        self._records.forget_sandbox(sandbox_id)

    def _ports_of(self, sandbox_id: str, record: SandboxRecord | None) -> set[str]:
        attachments = () if record is None else record.sandbox.attachments
        ports = {names.network_port(sandbox_id, attachment.network_id) for attachment in attachments}
        return ports | {names.gateway_port(self._ground.config.prefix, sandbox_id)}

    async def retain(self, sandbox_ids: Iterable[str]) -> None:
        """Remove every sandbox that is not among these."""
        kept = set(sandbox_ids)
        for sandbox_id in [known for known in self._known if known not in kept]:
            await self.detach(sandbox_id)

    # -- published ports -------------------------------------------------------------------------------------------

    async def set_ingress(self, node_ingress_addresses: tuple[str, ...], ports: tuple[IngressPort, ...]) -> None:
        """Answer on these ports. Ports that somebody else has are refused together, after the others work."""
        _check_ingress(node_ingress_addresses, ports)
        record = IngressRecord(addresses=tuple(node_ingress_addresses), ports=tuple(ports))
        self._records.save_ingress(record)
        await self._set_ingress(record)
        conflict = self._publisher.conflict()
        if conflict is not None:
            raise conflict

    async def _set_ingress(self, record: IngressRecord) -> None:
        async with self._ingress_lock:
            self._publisher.set_ingress(record)
            with _kernel_errors("ingress"):
                await self._ensure_ingress_device(record)
            await self._publisher.sync()

    async def _ensure_ingress_device(self, record: IngressRecord) -> list[str]:
        """This host is on the ingress network while it has an address there and ports to serve."""
        network = self._ingress_network()
        threads = self._ground.threads
        if network is not None and record.addresses and record.ports:
            devices = await self._use(network, _HOST_USER)
            return await threads.run(partial(self._ingress_device.ensure, devices, record.addresses))
        await threads.run(self._ingress_device.remove)
        if network is not None:
            await self._release(network, _HOST_USER)
        return []

    # -- verification ----------------------------------------------------------------------------------------------

    async def verify(self) -> list[str]:
        """Compare the kernel with what is wanted, repair it, and say what was wrong.

        Ports of sandboxes that were detached since the last time are left to the kernel, which is slow to remove them.
        """
        found = await self._ground.threads.run(self._gateway.ensure)
        for network in list(self._networks.values()):
            found += await self._verify_network(network)
        async with self._ingress_lock:
            found += await self._ensure_ingress_device(self._publisher.ingress)
        for sandbox_id in sorted(self._known):
            with suppress(NotFound):
                found += await self._repair(sandbox_id)
        found += await self._publisher.verify()
        found += await self._remove_strays()
        self._dying.clear()
        return found

    async def _verify_network(self, network: Network) -> list[str]:
        async with network.lock:
            if network.devices is None:
                return []
            work = partial(_verify_devices, self._ground, network.devices, network.state, self._ports_on(network))
            network.devices, found = await self._ground.threads.run(work)
        return [f"network {network.state.table.name}: {problem}" for problem in found]

    def _ports_on(self, network: Network) -> set[str]:
        ports = {names.network_port(user, network.network_id) for user in network.users}
        return ports | self._dying | {names.network_port(names.ingress_device(self._ground.config.prefix), "host")}


class _kernel_errors:  # noqa: N801  (a context manager that reads as a phrase)
    """What the kernel refuses is `Unavailable` to callers: nothing they said was wrong."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise Unavailable(f"cannot set up {self._what}: {error}") from error


def _ground(config: OverlayConfig, threads: Threads) -> Ground:
    netlink = Netlink()
    mtu = underlay_mtu(netlink, config.node_address)
    ground = Ground(config, netlink, Netlink(NETLINK_NETFILTER), Context(), threads, mtu)
    for directory in (ground.sandbox_dir, ground.network_dir):
        netns.prepare_directory(directory)
    return ground


def _remove_sandbox(path: Path, live: LiveSandbox | None) -> None:
    netns.remove(path)
    if live is not None:
        live.sockets.close()


def _open_devices(ground: Ground, state: TableState) -> Devices:
    devices = Devices(ground, state)
    try:
        devices.ensure()
        devices.sync_tunnels(state.tunnels(ground.config.node_address))
    except BaseException:
        devices.remove()
        raise
    return devices


def _names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _remove_network_at(path: Path) -> None:
    """A namespace that no daemon has open: the tunnel in it goes first."""
    fd = netns.open_existing(path)
    if fd is not None:
        libc.setns(fd)
        os.close(fd)
        netlink = Netlink()
        netlink.transact([rtnl.delete_link_named(names.VXLAN)])
        netlink.close()
    netns.remove(path)


def _verify_devices(ground: Ground, devices: Devices, state: TableState, ports: set[str]) -> tuple[Devices, list[str]]:
    if not devices.is_kept():
        devices.close()
        devices = _open_devices(ground, state)
        return devices, ["its namespace was missing"]
    devices.enter()
    found = devices.ensure()
    found += devices.sync_tunnels(state.tunnels(ground.config.node_address))
    for port in sorted(devices.ports() - ports):
        devices.remove_port(port)
        found.append(f"removed stray port {port}")
    return devices, found


def _write_network(
    ground: Ground, devices: Devices | None, state: TableState, records: Records, changes: list[VipChange]
) -> None:
    """Tunnels, then VIPs sandbox by sandbox; one that cannot be written (it may be going) holds up no other."""
    records.save_network(state.to_table())
    if devices is not None:
        devices.sync_tunnels(state.tunnels(ground.config.node_address))
    for change in changes:
        try:
            change.apply()
        except OSError as error:
            log.warning("VIPs of sandbox %s were not updated, verify will: %s", change.sandbox_id, error)


def _check_table(table: NetworkTable) -> None:
    names.check_id("network", table.network_id)
    if not 0 < table.vni < 1 << 24:
        raise InvalidArgument(f"network {table.name}: VNI {table.vni} is outside 1..16777215")


def _check_unchanged(old: NetworkTable, new: NetworkTable) -> None:
    if (old.vni, old.ingress) != (new.vni, new.ingress):
        raise InvalidArgument(f"network {new.name}: the VNI of a network cannot change; remove and create it again")


def _check_sandbox(sandbox: Sandbox) -> None:
    names.check_id("sandbox", sandbox.sandbox_id)
    networks = [attachment.network_id for attachment in sandbox.attachments]
    if len(networks) != len(set(networks)):
        raise InvalidArgument(f"sandbox {sandbox.sandbox_id}: more than one attachment to one network")
    for attachment in sandbox.attachments:
        if not attachment.addresses:
            raise InvalidArgument(f"sandbox {sandbox.sandbox_id}: no address on network {attachment.network_id}")
        _check_addresses(attachment.addresses)
    for port in sandbox.host_ports:
        _check_ports(port.published, port.target)


def _check_ingress(addresses: tuple[str, ...], ports: tuple[IngressPort, ...]) -> None:
    _check_addresses(addresses)
    for port in ports:
        _check_ports(port.published_port, port.target_port)


def _check_addresses(addresses: Iterable[str]) -> None:
    for address in addresses:
        try:
            ip_interface(address)
        except ValueError:
            raise InvalidArgument(f"{address!r} is not an address with a prefix length, such as 10.0.1.5/24") from None


def _check_ports(*ports: int) -> None:
    for port in ports:
        if not 0 < port < 1 << 16:
            raise InvalidArgument(f"port {port} is outside 1..65535")
