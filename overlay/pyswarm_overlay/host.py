"""One host's networks: what callers want, brought into the kernel and kept there.

`OverlayHost` is the only thing others use. It holds the sandboxes that are up, decides who waits for whom, and leaves
the work to `networks`, `sandbox`, `publisher` and `resolver`. Everything is level-triggered: each change is a
comparison of wanted with what was written, so a step that was missed is made up by the next one.

Locks: one per sandbox (attach, detach and repair of one sandbox follow one another), then one per network (its devices
and the VIPs of its sandboxes). They are always taken in this order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pyswarm_common.errors import FailedPrecondition, NotFound, PyswarmError

from . import preflight
from .checks import check_ingress, check_sandbox
from .core import names
from .core.dns_answer import View
from .gateway import Gateway, IngressDevice
from .ground import Ground, gateway_subnet, underlay_mtu
from .kernel import netns, tcp
from .kernel.netlink import NETLINK_NETFILTER, Netlink
from .kernel.nft import Context
from .kernel.threads import Threads
from .locks import KeyedLocks
from .network import Devices
from .networks import Networks
from .publisher import Publisher
from .records import IngressRecord, Records, SandboxRecord
from .refusals import kernel_errors
from .resolver import Resolver, Upstreams
from .sandbox import Builder, LiveSandbox, Sockets, interfaces_of
from .types import IngressPort, NetworkTable, OverlayConfig, Sandbox, TableDelta

log = logging.getLogger(__name__)

_HOST_USER = "@host"
"""Stands for this host itself among the users of the ingress network; no sandbox id begins with @."""
_MAX_DYING = 10_000


class OverlayHost:
    """The networks of the host (or lab host) in whose namespaces this process runs."""

    def __init__(self, ground: Ground, records: Records) -> None:
        """Use `open`."""
        self._ground = ground
        self._records = records
        self._known: dict[str, SandboxRecord] = {}
        self._live: dict[str, LiveSandbox] = {}
        self._dying: set[str] = set()
        """Ports of sandboxes detached since the last verification."""
        self._locks = KeyedLocks()
        self._ingress_lock = asyncio.Lock()
        self._networks = Networks(ground, self._records, self._live.values)
        self._gateway = Gateway(ground)
        self._ingress_device = IngressDevice(ground)
        self._publisher = Publisher(ground, self._gateways, self._networks.ingress_addresses)
        self._resolver = Resolver(Upstreams(ground.config.upstream_dns))

    # -- life of the host ------------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, config: OverlayConfig) -> OverlayHost:
        """Check the kernel, take over what an earlier daemon left, finish or remove what it left half made."""
        threads = Threads()
        await threads.run(partial(preflight.check, config))
        host = cls(*await threads.run(partial(_ground, config, threads)))
        try:
            with kernel_errors("this host's networks"):
                await host._take_over()
        except BaseException:
            await host.close()
            raise
        return host

    async def _take_over(self) -> None:
        self._networks.load()
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
        directory, threads = self._ground.sandbox_dir, self._ground.threads
        for path in await threads.run(lambda: sorted(directory.iterdir())):
            async with self._locks.hold(path.name):
                if path.name not in self._known:
                    await threads.run(partial(netns.remove, path))
                    done.append(f"removed stray sandbox {path.name}")
        done += await self._networks.remove_strays()
        return done + await threads.run(self._remove_stray_ports)

    def _remove_stray_ports(self) -> list[str]:
        """Blocking."""
        wanted = {names.gateway_port(self._ground.config.prefix, sandbox_id) for sandbox_id in self._known}
        strays = sorted(self._gateway.ports() - wanted - self._dying)
        for port in strays:
            self._gateway.remove_port(port)
        return [f"removed stray port {port}" for port in strays]

    async def close(self) -> None:
        """Let go of sockets and descriptors; the data plane stays as it is."""
        await self._resolver.close()
        self._publisher.close()
        await self._networks.close()
        await self._ground.threads.run(self._close_sockets)

    def _close_sockets(self) -> None:
        for live in self._live.values():
            live.sockets.close()
        self._live.clear()
        self._ground.close()

    async def destroy(self) -> None:
        """Remove everything of ours from this host, then close. (`net.ipv4.ip_forward` stays on.)"""
        for sandbox_id in list(self._known):
            await self.detach(sandbox_id)
        await self._set_ingress(IngressRecord())
        for network in self._networks.all():
            await self._networks.release(network, _HOST_USER)
            self._networks.forget(network)
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

    # -- tables ----------------------------------------------------------------------------------------------------

    def networks(self) -> list[str]:
        """Every network that we have a table of, also those of an earlier daemon: remove what is no longer wanted."""
        return self._networks.ids()

    async def apply_table(self, table: NetworkTable) -> None:
        """Take a network's full state."""
        await self._networks.apply_table(table)
        if table.ingress:
            await self._set_ingress(self._publisher.ingress)

    async def apply_delta(self, delta: TableDelta) -> bool:
        """Take an increment; False when it does not start at the version we hold: apply the full table then."""
        network = await self._networks.apply_delta(delta)
        if network is not None and network.state.table.ingress:
            await self._publisher.sync()
        return network is not None

    async def remove_network(self, network_id: str) -> None:
        """Forget a network; refused while a sandbox is on it, no-op if unknown."""
        network = self._networks.find(network_id)
        if network is None:
            return
        users = network.users - {_HOST_USER}
        if users:
            raise FailedPrecondition(
                f"network {network.state.table.name} is in use by {len(users)} sandboxes: detach them first"
            )
        self._networks.forget(network)
        if network.state.table.ingress:
            await self._set_ingress(self._publisher.ingress)
        await self._networks.release(network, _HOST_USER)

    # -- sandboxes -------------------------------------------------------------------------------------------------

    def sandboxes(self) -> list[str]:
        """Every sandbox of ours, also those of an earlier daemon that are not up yet."""
        return sorted(self._known)

    async def attach(self, sandbox: Sandbox) -> str:
        """Make (or repair) a sandbox; when this returns it carries traffic, its names and VIPs work.

        Returns the path of its network namespace.
        """
        check_sandbox(sandbox)
        async with self._locks.hold(sandbox.sandbox_id):
            for attachment in sandbox.attachments:
                self._networks.get(attachment.network_id)
            fresh = sandbox.sandbox_id not in self._known
            try:
                with kernel_errors(f"sandbox {sandbox.sandbox_id}"):
                    await self._attach(sandbox)
            except BaseException:
                if fresh:
                    await self._detach(sandbox.sandbox_id)
                raise
        return str(self._ground.sandbox_path(sandbox.sandbox_id))

    async def _attach(self, sandbox: Sandbox) -> None:
        self._publisher.reserve(sandbox)
        before = self._live.get(sandbox.sandbox_id)
        record = self._record(sandbox)
        self._records.save_sandbox(record)
        await self._build(record)
        if before is not None:
            for network_id in set(before.network_ids).difference(self._live[sandbox.sandbox_id].network_ids):
                await self._networks.release(self._networks.get(network_id), sandbox.sandbox_id)
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
        networks = [self._networks.get(attachment.network_id) for attachment in sandbox.attachments]
        devices = {network.network_id: await self._networks.use(network, sandbox.sandbox_id) for network in networks}
        vips = {network.network_id: network.state.vips for network in networks}
        live = self._live.get(sandbox.sandbox_id)
        builder = self._builder(record, devices, vips, None if live is None else live.sockets)
        sockets, done = await self._ground.threads.run(builder.run)
        self._go_live(record, sockets, vips)
        for network in networks:
            if network.state.vips is not vips[network.network_id]:
                await self._networks.sync(network)
        return done

    def _builder(
        self,
        record: SandboxRecord,
        devices: dict[str, Devices],
        vips: dict[str, dict[str, tuple[str, ...]]],
        sockets: Sockets | None,
    ) -> Builder:
        sandbox, prefix, gateway = record.sandbox, self._ground.config.prefix, self._gateway
        places = {}
        for attachment in sandbox.attachments:
            network = self._networks.get(attachment.network_id)
            mtu, mac = devices[attachment.network_id].mtu, network.mac(attachment.addresses)
            places[attachment.network_id] = (network.state.table.ingress, mtu, mac)
        way_out = (record.gateway_address, gateway.address, gateway.mtu)
        return Builder(
            path=self._ground.sandbox_path(sandbox.sandbox_id),
            table=names.sandbox_table(prefix),
            sandbox_id=sandbox.sandbox_id,
            interfaces=interfaces_of(sandbox, places, prefix, way_out),
            networks=devices,
            gateway=gateway,
            vips={vip: backends for table in vips.values() for vip, backends in table.items()},
            sockets=sockets,
        )

    def _go_live(self, record: SandboxRecord, sockets: Sockets, vips: dict[str, dict[str, tuple[str, ...]]]) -> None:
        sandbox_id = record.sandbox.sandbox_id
        is_new = sandbox_id not in self._live
        self._live[sandbox_id] = LiveSandbox(record, sockets, vips)
        if is_new:
            view = partial(self._view, sandbox_id)
            self._resolver.add(sandbox_id, sockets.udp, sockets.tcp, view, record.sandbox.dns)

    def _view(self, sandbox_id: str) -> View:
        """What names a sandbox sees, now."""
        live = self._live[sandbox_id]
        networks = [self._networks.find(network_id) for network_id in live.network_ids]
        seen = [network.names for network in networks if network is not None and not network.state.table.ingress]
        return View(seen, live.own_names)

    def _gateways(self) -> dict[str, str]:
        """Endpoint -> gateway address, of the endpoints that are up here."""
        return {
            attachment.endpoint_id: live.record.gateway_address
            for live in self._live.values()
            if live.record.gateway_address is not None
            for attachment in live.sandbox.attachments
        }

    async def connections(self, sandbox_id: str) -> int:
        """How many connections that others opened to the sandbox have something under way; none if it is unknown."""
        return await self._ground.threads.run(partial(tcp.served, self._ground.sandbox_path(sandbox_id)))

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
        for network in self._networks.all():
            if sandbox_id in network.users:
                await self._networks.release(network, sandbox_id)
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
        check_ingress(node_ingress_addresses, ports)
        record = IngressRecord(addresses=tuple(node_ingress_addresses), ports=tuple(ports))
        self._records.save_ingress(record)
        await self._set_ingress(record)
        conflict = self._publisher.conflict()
        if conflict is not None:
            raise conflict

    async def _set_ingress(self, record: IngressRecord) -> None:
        async with self._ingress_lock:
            self._publisher.set_ingress(record)
            with kernel_errors("published ports"):
                await self._ensure_ingress_device(record)
            await self._publisher.sync()

    async def _ensure_ingress_device(self, record: IngressRecord) -> list[str]:
        """This host is on the ingress network while it has an address there and ports to serve."""
        network, threads = self._networks.ingress(), self._ground.threads
        if network is not None and record.addresses and record.ports:
            devices = await self._networks.use(network, _HOST_USER)
            return await threads.run(partial(self._ingress_device.ensure, devices, record.addresses))
        await threads.run(self._ingress_device.remove)
        if network is not None:
            await self._networks.release(network, _HOST_USER)
        return []

    # -- verification ----------------------------------------------------------------------------------------------

    async def verify(self) -> list[str]:
        """Compare the kernel with what is wanted, repair it, and say what was wrong.

        Ports of sandboxes that were detached since the last time are left to the kernel, which is slow to remove them.
        """
        with kernel_errors("this host's networks"):
            return await self._verify()

    async def _verify(self) -> list[str]:
        found = await self._ground.threads.run(self._gateway.ensure)
        spared = self._dying | {self._ingress_device.port}
        for network in self._networks.all():
            found += await self._networks.verify(network, spared)
        async with self._ingress_lock:
            found += await self._ensure_ingress_device(self._publisher.ingress)
        for sandbox_id in self.sandboxes():
            async with self._locks.hold(sandbox_id):
                if sandbox_id in self._known:
                    with suppress(NotFound):  # its network's table has not come yet
                        found += await self._build(self._known[sandbox_id])
        found += await self._publisher.verify()
        found += await self._remove_strays()
        self._dying.clear()
        return found


def _ground(config: OverlayConfig, threads: Threads) -> tuple[Ground, Records]:
    netlink = Netlink()
    mtu = underlay_mtu(netlink, config.node_address)
    records = Records(config.state_dir)
    subnet = gateway_subnet(netlink, config.gwbridge_subnet, records)
    ground = Ground(config, netlink, Netlink(NETLINK_NETFILTER), Context(), threads, mtu, subnet)
    for directory in (ground.sandbox_dir, ground.network_dir):
        netns.prepare_directory(directory)
    return ground, records


def _remove_sandbox(path: Path, live: LiveSandbox | None) -> None:
    netns.remove(path)
    if live is not None:
        live.sockets.close()
