"""One host's networks: what callers want, brought into the kernel and kept there.

`OverlayHost` is the only thing others use. It puts the parts together and hands each call to the one that does it:
`networks` (tables and devices), `sandboxes` (containers' namespaces), `ingress` and `publisher` (ports), `resolver`
(names), `verification` (what is compared and repaired). Everything is level-triggered: each change is a comparison of
wanted with what was written, so a step that was missed is made up by the next one.

Locks: one per sandbox (attach, detach and repair of one sandbox follow one another), then one per network (its devices
and the VIPs of its sandboxes). They are always taken in this order.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from functools import partial

from pyswarm_common.errors import FailedPrecondition

from . import preflight
from .audit.parts import Kept, verification
from .drivers.plugin_discovery import PluginPlaces
from .encryption.encryption import Encryption
from .encryption.inner import Inner
from .following import Following
from .gateway import Gateway
from .ground import Ground, gateway_subnet, gateway_subnet6
from .ingress import HOST_USER, Ingress
from .kernel import netns
from .kernel.netlink import NETLINK_NETFILTER, Netlink
from .kernel.nft import Context
from .kernel.ruleset import Scratch
from .kernel.threads import Threads
from .network import Devices
from .networks import Networks
from .publisher import Publisher
from .records import IngressRecord, Records
from .refusals import kernel_errors
from .reports import Finding, Held, Hop, Report, Source, Step
from .resolving.link import ResolverLink
from .sandbox import LiveSandbox
from .sandboxes import Sandboxes
from .tracing.far import FarSide
from .tracing.near import NearSide
from .tracing.published import PublishedSide
from .types import IngressPort, NetworkTable, OverlayConfig, Sandbox, TableDelta
from .underlay import Underlay

log = logging.getLogger(__name__)


class OverlayHost:
    """The networks of the host (or lab host) in whose namespaces this process runs."""

    def __init__(self, ground: Ground, records: Records, scratch: Scratch) -> None:
        """Use `open`."""
        self._ground = ground
        self._records = records
        live: dict[str, LiveSandbox] = {}
        self._gateway = Gateway(ground)
        self.encryption = Encryption(ground, self._tables)
        self._resolver = ResolverLink.of(ground.config)
        self._networks = Networks(ground, records, live.values, self.encryption.ready, self._resolver)
        self._publisher = Publisher(ground, self._networks.ingress)
        self._sandboxes = Sandboxes(
            ground, records, live, self._networks, self._gateway, self._publisher, self._resolver
        )
        self._ingress = Ingress(ground, records, self._networks, self._publisher, self._sandboxes.follow_ipv6)
        self._scratch = scratch
        parts = (self._gateway, self._networks, self._sandboxes, self._ingress, self._publisher)
        kept = Kept(ground, *parts, live, self.encryption)
        self._verification = verification(kept, scratch, self._sweep)
        self._near = NearSide(ground, self._networks, self._sandboxes)
        self._published = PublishedSide(ground, self._networks, self._publisher, scratch)
        self._far = FarSide(ground, self._networks, self._sandboxes, self._published)
        self._following = Following(ground, self._networks, self._sandboxes, self._ingress)

    # -- life of the host ------------------------------------------------------------------------------------------

    @classmethod
    async def open(cls, config: OverlayConfig) -> OverlayHost:
        """Check the kernel, take over what an earlier daemon left, finish or remove what it left half made."""
        threads = Threads()
        await threads.run(partial(preflight.check, config))
        host = cls(*await threads.run(partial(_ground, config, threads)), await threads.run(Scratch))
        try:
            with kernel_errors("this host's networks"):
                await host._take_over()
        except BaseException:
            await host.close()
            raise
        return host

    def _tables(self) -> list[NetworkTable]:
        return [network.state.table for network in self._networks.all()]

    async def _take_over(self) -> None:
        self._resolver.start()
        self._networks.load()
        await self.encryption.look()
        await self._ground.threads.run(partial(self._ground.underlay.look, self._networks.peers()))
        await self._sandboxes.follow_ipv6()
        await self._ground.threads.run(self._gateway.ensure)
        await self._sandboxes.take_over()
        await self._ingress.apply(self._records.ingress())
        await self._publisher.start()
        for finding in (await self._verification.check(repair=True)).findings:
            log.info("networks: left by an earlier daemon: %s %s: %s", *finding.place, "; ".join(finding.problems))
        await self._resolver.take_over(self._sandboxes.ids())

    async def _remove_strays(self) -> list[str]:
        """What carries our names and belongs to nothing we know."""
        return [*await self._sandboxes.remove_strays(), *await self._networks.remove_strays()]

    async def close(self) -> None:
        """Let go of sockets and descriptors; the data plane stays as it is."""
        await self._resolver.close()
        self._publisher.close()
        await self._networks.close()
        await self.encryption.close()
        await self._ground.threads.run(self._close_rest)

    def _close_rest(self) -> None:
        self._scratch.close()
        self._sandboxes.close()
        self._ground.close()

    async def destroy(self) -> None:
        """Remove everything of ours from this host, then close. (`net.ipv4.ip_forward` stays on.)"""
        await self._sandboxes.retain(())
        await self._ingress.apply(IngressRecord())
        for network in self._networks.all():
            await self._networks.release(network, HOST_USER)
            self._networks.forget(network)
        await self._remove_strays()
        await self.encryption.destroy()
        await self._resolver.stop()
        await self._ground.threads.run(self._destroy_rest)
        await self.close()

    def _destroy_rest(self) -> None:
        self._publisher.remove()
        self._ingress.remove_device()
        self._gateway.remove()
        for directory in (self._ground.sandbox_dir, self._ground.network_dir):
            netns.remove_directory(directory)
        self._records.remove_all()

    @property
    def plugin_places(self) -> PluginPlaces:
        """Where plugins of this host are looked for."""
        return PluginPlaces(self._ground.config.plugin_sockets, self._ground.config.plugin_specs)

    # -- tables ----------------------------------------------------------------------------------------------------

    def networks(self) -> list[str]:
        """Every network that we have a table of, also those of an earlier daemon: remove what is no longer wanted."""
        return self._networks.ids()

    async def apply_table(self, table: NetworkTable) -> None:
        """Take a network's full state."""
        await self._networks.apply_table(table)
        self.encryption.heed(table)
        await self._following.heed(record.node_address for record in table.endpoints)
        if table.ingress:
            await self._ingress.again()

    async def apply_delta(self, delta: TableDelta) -> bool:
        """Take an increment; False when it does not start at the version we hold: apply the full table then."""
        network = await self._networks.apply_delta(delta)
        await self._following.heed(record.node_address for record in delta.upsert_endpoints)
        if network is not None and network.state.table.ingress:
            await self._ingress.heed()
        return network is not None

    async def remove_network(self, network_id: str) -> None:
        """Forget a network; refused while a sandbox is on it, no-op if unknown."""
        network = self._networks.find(network_id)
        if network is None:
            return
        users = network.users - {HOST_USER}
        if users:
            raise FailedPrecondition(
                f"network {network.state.table.name} is in use by {len(users)} sandboxes: detach them first"
            )
        self._networks.forget(network)
        if network.state.table.ingress:
            await self._ingress.again()
        await self._networks.release(network, HOST_USER)

    # -- sandboxes -------------------------------------------------------------------------------------------------

    def sandboxes(self) -> list[str]:
        """Every sandbox of ours, also those of an earlier daemon that are not up yet."""
        return self._sandboxes.ids()

    async def attach(self, sandbox: Sandbox) -> str:
        """Make (or repair) a sandbox; when this returns it carries traffic, its names and VIPs work.

        Returns the path of its network namespace.
        """
        return await self._sandboxes.attach(sandbox)

    async def connections(self, sandbox_id: str) -> int:
        """How many connections that others opened to the sandbox have something under way; none if it is unknown."""
        return await self._sandboxes.connections(sandbox_id)

    async def detach(self, sandbox_id: str) -> None:
        """Remove a sandbox and what only it needed; no-op if unknown."""
        await self._sandboxes.detach(sandbox_id)

    async def retain(self, sandbox_ids: Iterable[str]) -> None:
        """Remove every sandbox that is not among these."""
        await self._sandboxes.retain(sandbox_ids)

    async def follow_underlay(self) -> bool:
        """The host's links or routes have changed: overlay networks follow the MTU to their peers. Whether it did."""
        return await self._following.look()

    # -- published ports -------------------------------------------------------------------------------------------

    async def set_ingress(self, node_ingress_addresses: tuple[str, ...], ports: tuple[IngressPort, ...]) -> None:
        """Answer on these ports. Ports that somebody else has are refused together, after the others work."""
        await self._ingress.set(node_ingress_addresses, ports)

    # -- verification ----------------------------------------------------------------------------------------------

    async def verify(self) -> list[str]:
        """Compare the kernel with what is wanted, repair it, and say what was wrong."""
        report = await self.check(repair=True)
        return [f"{' '.join(one.place).strip()}: {problem}" for one in report.findings for problem in one.problems]

    async def check(self, *, repair: bool) -> Report:
        """Compare everything now; what is not as wanted is repaired if asked for."""
        with kernel_errors("this host's networks"):
            report = await self._verification.check(repair=repair)
        states = [network.state for network in self._networks.all()]
        held = [Held(state.table.network_id, state.table.name, state.version) for state in states]
        return replace(report, tables=tuple(held))

    def watch(self, period_s: float, is_busy: Callable[[], bool]) -> AsyncIterator[Finding]:
        """Verify continuously, for ever: says every problem once it was repaired, or could not be."""
        return self._verification.watch(period_s, is_busy)

    # -- tracing ---------------------------------------------------------------------------------------------------

    async def trace_source(self, sandbox_id: str, target: str, port: int, protocol: str, *, probe: bool) -> Source:
        """Where packets of a sandbox for a name or an address would go, as its kernel has it. Without a sandbox: those
        of a client from outside for a published port."""
        if not sandbox_id:
            return await self._published.look(port, protocol)
        with kernel_errors(f"sandbox {sandbox_id}"):
            found = await self._near.look(sandbox_id, target)
            if probe and port and protocol == "tcp":
                return replace(found, probe=await self._near.probe(sandbox_id, target, port))
            return found

    async def trace_target(self, sandbox_id: str, hop: Hop, port: int, protocol: str) -> tuple[Step, ...]:
        """What such packets would meet here."""
        with kernel_errors(f"sandbox {sandbox_id}"):
            return await self._far.look(sandbox_id, hop, port, protocol)

    async def _sweep(self) -> list[str]:
        """What drivers keep in the host's own namespace is compared and repaired in one; strays go."""
        dying = self._sandboxes.dying
        found: list[str] = []
        for network in self._networks.all():
            if not isinstance(network.devices, Devices):
                found += await self._networks.verify(network, {*dying})
        found += await self._remove_strays()
        self._sandboxes.forget_dying(dying)
        return found


def _ground(config: OverlayConfig, threads: Threads) -> tuple[Ground, Records]:
    netlink = Netlink()
    underlay = Underlay(netlink, config.node_address)
    records = Records(config.state_dir)
    subnet = gateway_subnet(netlink, config.gwbridge_subnet, records)
    subnet6 = gateway_subnet6(netlink, config.gwbridge_subnet6, records)
    inner = Inner(config.run_dir)
    ground = Ground(config, netlink, Netlink(NETLINK_NETFILTER), Context(), threads, underlay, subnet, inner, subnet6)
    for directory in (ground.sandbox_dir, ground.network_dir):
        netns.prepare_directory(directory)
    return ground, records
