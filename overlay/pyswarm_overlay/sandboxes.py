"""The sandboxes of this host: which exist, which are up, who waits for whom while one is made, repaired or removed.

A sandbox is brought to what its record says by one visit (`sandbox.Builder`), whether it is new, changed, left by an
earlier daemon or damaged. One lock per sandbox makes its attach, detach and repair follow one another; the locks of its
networks come after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pyswarm_common.errors import NotFound, PyswarmError

from .checks import check_sandbox
from .core import names
from .core.local import with_default_routes
from .drivers.interface import NetworkDevices
from .drivers.plugin_devices import EndpointLost
from .gateway import Gateway
from .ground import Ground
from .kernel import netns, tcp
from .locks import KeyedLocks
from .networks import Networks
from .publisher import Publisher
from .records import Records, SandboxRecord
from .refusals import kernel_errors
from .resolving.link import ResolverLink
from .sandbox import Builder, LiveSandbox, Sockets, interfaces_of, reopened, vips_seen
from .types import Sandbox

log = logging.getLogger(__name__)

_MAX_DYING = 10_000


class Sandboxes:
    """Owned by `OverlayHost`, which made everything given here; `live` is shared with those who only read it."""

    def __init__(
        self,
        ground: Ground,
        records: Records,
        live: dict[str, LiveSandbox],
        networks: Networks,
        gateway: Gateway,
        publisher: Publisher,
        resolver: ResolverLink,
    ) -> None:
        self._ground = ground
        self._records = records
        self._live = live
        self._networks = networks
        self._gateway = gateway
        self._publisher = publisher
        self._resolver = resolver
        self._known: dict[str, SandboxRecord] = {}
        self._dying: set[str] = set()
        """Ports of sandboxes detached since the last verification."""
        self._locks = KeyedLocks()

    # -- an earlier daemon's -----------------------------------------------------------------------------------------

    async def take_over(self) -> None:
        """Those of an earlier daemon: up again, or left for the next `attach`, or forgotten."""
        for record in self._records.sandboxes():
            self._adopt(record)
        results = await asyncio.gather(*(self._revive(record) for record in list(self._known.values())))
        for problem in filter(None, results):
            log.warning("%s", problem)

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

    async def remove_strays(self) -> list[str]:
        """Namespaces and ports that carry our names and belong to no sandbox we know."""
        done: list[str] = []
        directory, threads = self._ground.sandbox_dir, self._ground.threads
        for path in await threads.run(lambda: sorted(directory.iterdir())):
            async with self._locks.hold(path.name):
                if path.name not in self._known:
                    await threads.run(partial(netns.remove, path))
                    done.append(f"removed stray sandbox {path.name}")
        done += await self._networks.drivers.plugins.sweep(list(self._known))
        return done + await threads.run(self._remove_stray_ports)

    def _remove_stray_ports(self) -> list[str]:
        """Blocking."""
        wanted = {names.gateway_port(self._ground.config.prefix, sandbox_id) for sandbox_id in self._known}
        strays = sorted(self._gateway.ports() - wanted - self._dying)
        for port in strays:
            self._gateway.remove_port(port)
        return [f"removed stray port {port}" for port in strays]

    def close(self) -> None:
        """Blocking: let go of the sockets."""
        for live in self._live.values():
            live.sockets.close()
        self._live.clear()

    # -- coming and going ---------------------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """Every sandbox of ours, also those of an earlier daemon that are not up yet."""
        return sorted(self._known)

    async def attach(self, sandbox: Sandbox) -> str:
        """Make (or repair) a sandbox; when this returns it carries traffic, its names and VIPs work.

        Returns the path of its network namespace.
        """
        names.check_id("sandbox", sandbox.sandbox_id)
        async with self._locks.hold(sandbox.sandbox_id):
            for attachment in sandbox.attachments:
                self._networks.get(attachment.network_id)
            fresh = sandbox.sandbox_id not in self._known
            try:
                with kernel_errors(f"sandbox {sandbox.sandbox_id}"):
                    placed = await self._place(sandbox)
                    check_sandbox(placed)
                    await self._attach(placed)
            except BaseException:
                if fresh:
                    await self._networks.drivers.leave(sandbox, self._networks.find)
                    await self._detach(sandbox.sandbox_id)
                raise
        return str(self._ground.sandbox_path(sandbox.sandbox_id))

    async def _place(self, sandbox: Sandbox) -> Sandbox:
        """With its addresses on the networks where this node gives them."""
        known = self._known.get(sandbox.sandbox_id)
        before = None if known is None else known.sandbox
        return await self._networks.drivers.place(sandbox, before, self._networks.get)

    async def _attach(self, sandbox: Sandbox) -> None:
        self._publisher.reserve(sandbox)
        before = self._live.get(sandbox.sandbox_id)
        record = self._record(sandbox)
        self._records.save_sandbox(record)
        await self._build(record)
        if before is not None:
            for network_id in set(before.network_ids).difference(self._live[sandbox.sandbox_id].network_ids):
                await self._networks.release(self._networks.get(network_id), sandbox.sandbox_id)
        for attachment in sandbox.attachments:
            if self._networks.get(attachment.network_id).local is not None:
                await self._networks.sync(self._networks.get(attachment.network_id))
        self._publisher.open(sandbox, self._gateway.both(record.gateway_address))
        await self._publisher.sync()

    def _record(self, sandbox: Sandbox) -> SandboxRecord:
        """The sandbox with its gateway address: the one it has, or a new one if it needs one."""
        known = self._known.get(sandbox.sandbox_id)
        address = known.gateway_address if known is not None else None
        routes = self._networks.drivers.default_routes(sandbox)
        needed = (sandbox.egress and not routes) or bool(sandbox.host_ports)
        if needed and address is None:
            address = self._gateway.allocate()
        elif not needed and address is not None:
            self._gateway.release(address)
            address = None
        record = SandboxRecord(sandbox=sandbox, gateway_address=address)
        self._known[sandbox.sandbox_id] = record
        return record

    async def _build(self, record: SandboxRecord, *, may_renew: bool = True) -> list[str]:
        """Bring the sandbox to what its record says; a table that changed meanwhile is caught up with."""
        sandbox = record.sandbox
        networks = [self._networks.get(attachment.network_id) for attachment in sandbox.attachments]
        devices = {network.network_id: await self._networks.use(network, sandbox.sandbox_id) for network in networks}
        states = {network.network_id: network.state for network in networks}
        vips = {network_id: vips_seen(sandbox, state) for network_id, state in states.items()}
        live = self._live.get(sandbox.sandbox_id)
        builder = self._builder(record, devices, vips, None if live is None else live.sockets)
        is_new = live is None and not netns.exists(builder.path)
        try:
            sockets, done = await self._ground.threads.run(builder.run)
        except EndpointLost:
            if not may_renew:
                raise
            await self._networks.drivers.renew(sandbox)
            return await self._build(record, may_renew=False)
        await self._networks.drivers.complete(sandbox, builder.path, builder.interfaces)
        if self._go_live(record, sockets, vips):
            await self._resolver.sync()
        ensure_policy = self._networks.policies.ensure
        done += await ensure_policy(self._live[sandbox.sandbox_id], builder.interfaces, is_new=is_new)
        for network in networks:
            if network.state is not states[network.network_id]:
                await self._networks.sync(network)
        return done

    def _builder(
        self,
        record: SandboxRecord,
        devices: dict[str, NetworkDevices],
        vips: dict[str, dict[str, tuple[str, ...]]],
        sockets: Sockets | None,
    ) -> Builder:
        sandbox, prefix, gateway = record.sandbox, self._ground.config.prefix, self._gateway
        places = {}
        for attachment in sandbox.attachments:
            network = self._networks.get(attachment.network_id)
            place = devices[attachment.network_id]
            port = names.network_port(sandbox.sandbox_id, attachment.network_id)
            mac = place.own_mac(port, network.mac(attachment.addresses))
            places[attachment.network_id] = (network.state.table.ingress, place.mtu, mac)
        way_out = (gateway.both(record.gateway_address), gateway.addresses, gateway.mtu)
        return Builder(
            path=self._ground.sandbox_path(sandbox.sandbox_id),
            table=names.sandbox_table(prefix),
            sandbox_id=sandbox.sandbox_id,
            interfaces=with_default_routes(
                interfaces_of(sandbox, places, prefix, way_out), self._networks.drivers.default_routes(sandbox)
            ),
            networks=devices,
            gateway=gateway,
            vips={vip: backends for table in vips.values() for vip, backends in table.items()},
            sockets=sockets,
        )

    def _go_live(self, record: SandboxRecord, sockets: Sockets, vips: dict[str, dict[str, tuple[str, ...]]]) -> bool:
        """Whether names are still answered as they were before."""
        sandbox_id = record.sandbox.sandbox_id
        live = self._live[sandbox_id] = LiveSandbox(record, sockets, vips)
        return self._answer_names(live)

    def _answer_names(self, live: LiveSandbox) -> bool:
        sandbox, sockets = live.sandbox, (live.sockets.udp, live.sockets.tcp)
        return self._resolver.serve(sandbox.sandbox_id, sockets, live.network_ids, live.own_names, sandbox.dns)

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
        self._networks.policies.forget(sandbox_id)
        self._resolver.leave(sandbox_id)
        self._publisher.release(sandbox_id)
        await self._publisher.sync()
        if len(self._dying) > _MAX_DYING:
            self._dying.clear()  # nobody verifies; at worst a later verification tells of ports that were on their way
        self._dying |= self._ports_of(sandbox_id, record)
        await self._ground.threads.run(partial(_remove_sandbox, self._ground.sandbox_path(sandbox_id), live))
        for network in self._networks.all():
            if sandbox_id in network.users:
                await self._networks.release(network, sandbox_id)
        if record is not None:
            await self._networks.drivers.leave(record.sandbox, self._networks.find)
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

    # -- verification --------------------------------------------------------------------------------------------------

    @property
    def dying(self) -> frozenset[str]:
        """Ports of sandboxes that were detached since `forget_dying`: the kernel takes its time to remove them."""
        return frozenset(self._dying)

    async def follow_ipv6(self) -> None:
        """Once this host has IPv6, the ways out have it too: those that exist are completed, and nothing is cut."""
        if not await self._ground.threads.run(self._gateway.look):
            return
        for live in list(self._live.values()):
            self._publisher.open(live.sandbox, self._gateway.both(live.record.gateway_address))
        for sandbox_id in self.ids():
            await self.verify(sandbox_id)
        await self._publisher.sync()

    def forget_dying(self, ports: frozenset[str]) -> None:
        self._dying -= ports

    async def visit(self, sandbox_id: str, look: Callable[[Builder, LiveSandbox], list[str]]) -> list[str]:
        """Call `look` in a thread, while nothing else happens to this sandbox; [] if it is not up."""
        async with self._locks.hold(sandbox_id):
            live = self._live.get(sandbox_id)
            if live is None:
                return []
            networks = [self._networks.find(network_id) for network_id in live.network_ids]
            devices = {one.network_id: one.devices for one in networks if one is not None and one.devices is not None}
            if len(devices) < len(live.network_ids):
                return []
            builder = self._builder(live.record, devices, live.vips, live.sockets)
            return await self._ground.threads.run(partial(look, builder, live))

    async def reopen(self, sandbox_id: str) -> None:
        """Give a sandbox new sockets for its names, since somebody ended the old ones."""
        async with self._locks.hold(sandbox_id):
            live = self._live.get(sandbox_id)
            if live is None:
                return
            fresh = await self._ground.threads.run(partial(reopened, live.sockets))
            old, live.sockets = live.sockets, fresh
            self._answer_names(live)
            old.udp.close()
            old.tcp.close()

    async def verify(self, sandbox_id: str) -> list[str]:
        """Compare one sandbox with what is wanted, repair it, and say what was wrong."""
        async with self._locks.hold(sandbox_id):
            record = self._known.get(sandbox_id)
            if record is None:
                return []
            with suppress(NotFound):  # its network's table has not come yet
                return await self._build(record)
            return []


def _remove_sandbox(path: Path, live: LiveSandbox | None) -> None:
    netns.remove(path)
    if live is not None:
        live.sockets.close()
