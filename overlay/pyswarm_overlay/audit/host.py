"""Verifies what is ours in the host's own namespace: sandboxes' ways out, the ingress device, published ports.

Settings below /proc/sys change in silence and have a part of their own, which is asked often; the rest is read once for
all sandboxes, when something changed there and in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from ipaddress import ip_interface

from pyswarm_overlay.core import comparison, names
from pyswarm_overlay.core.comparison import WantedDevice, WantedEnd
from pyswarm_overlay.core.facts import Observed
from pyswarm_overlay.gateway import Gateway
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.ingress import Ingress
from pyswarm_overlay.kernel import mending, rtnl, ruleset, sysctl
from pyswarm_overlay.kernel.netlink import Message
from pyswarm_overlay.networks import Networks
from pyswarm_overlay.publisher import Publisher
from pyswarm_overlay.sandbox import LiveSandbox
from pyswarm_overlay.sandboxes import Sandboxes
from pyswarm_overlay.verified import InTheHost

_FORWARD = "ipv4/ip_forward"


class HostAudit(InTheHost):
    """`live` tells the sandboxes that are up."""

    def __init__(
        self,
        ground: Ground,
        gateway: Gateway,
        networks: Networks,
        sandboxes: Sandboxes,
        ingress: Ingress,
        live: Mapping[str, LiveSandbox],
    ) -> None:
        self._ground = ground
        self._gateway = gateway
        self._networks = networks
        self._sandboxes = sandboxes
        self._ingress = ingress
        self._live = live

    async def observe(self, _key: str) -> list[str]:
        ends, device = self._ends(), self._device()
        found = await self._ground.threads.run(self._read)
        problems: list[str] = []
        for end in ends:
            problems += comparison.end_problems(end, found)
        if device is not None:
            problems += comparison.device_problems(device, found)
        problems += await self._ingress.odd_returns()
        if self._gateway.lacks_ipv6(entry.address for entry in found.addresses):
            problems.append("this host has IPv6, and the ways out of its sandboxes have none")
        return problems + [f"device {name} is a stray" for name in self._strays(found)]

    def _read(self) -> Observed:
        return mending.observe(self._ground.netlink)

    def devices(self) -> list[str]:
        """The names of all that should be there."""
        device = self._device()
        return [end.port for end in self._ends()] + ([device.name] if device is not None else [])

    def _ends(self) -> list[WantedEnd]:
        lives = self._live.items()
        return [self._end(sandbox_id, live) for sandbox_id, live in lives if live.record.gateway_address is not None]

    def _device(self) -> WantedDevice | None:
        addresses, network = self._ingress.addresses, self._networks.ingress()
        if not addresses or network is None or network.devices is None:
            return None
        return WantedDevice(self._ingress.name, network.devices.mtu, names.mac_of(addresses), addresses)

    def _strays(self, found: Observed) -> list[str]:
        """Ways out of nobody."""
        prefix = self._ground.config.prefix
        known = {names.gateway_port(prefix, sandbox_id) for sandbox_id in self._sandboxes.ids()}
        start = names.gateway_port_prefix(prefix)
        ours = (link.name for link in found.links.values() if link.name.startswith(start) and link.kind == "veth")
        return [name for name in ours if name not in known and name not in self._sandboxes.dying]

    async def repair(self, _key: str) -> None:
        await self._ground.threads.run(self._gateway.ensure)
        await self._sandboxes.follow_ipv6()
        ends, device = self._ends(), self._device()
        found = await self._ground.threads.run(self._read)
        await self._ground.threads.run(partial(self._mend, ends, device, found))
        found = await self._ground.threads.run(self._read)
        for end in ends:
            if comparison.end_problems(end, found):
                await self._sandboxes.verify(end.sandbox_id)
        await self._ingress.verify()

    def _mend(self, ends: list[WantedEnd], device: WantedDevice | None, found: Observed) -> None:
        """Blocking: every setting of devices that are there."""
        messages: list[Message] = [rtnl.delete_link_named(name) for name in self._strays(found)]
        for end in ends:
            link = found.links.get(end.port)
            if link is not None and comparison.end_problems(end, found):
                messages += [mending.set_link(link.index, end.mtu), rtnl.allow_loopback_routes(link.index)]
                if comparison.lost_ways(end, found):
                    messages.append(rtnl.delete_link_named(end.port))  # the builder makes the pair anew
        link = None if device is None else found.links.get(device.name)
        if device is not None and link is not None and comparison.device_problems(device, found):
            messages += [mending.set_link(link.index, device.mtu), rtnl.allow_loopback_routes(link.index)]
            messages += mending.own_routes(device.addresses, link.index, found)
        self._ground.netlink.transact(messages)

    def _end(self, sandbox_id: str, live: LiveSandbox) -> WantedEnd:
        addresses = self._gateway.both(live.record.gateway_address)
        peers = tuple(str(ip_interface(address).ip) for address in addresses)
        port = names.gateway_port(self._ground.config.prefix, sandbox_id)
        return WantedEnd(sandbox_id, port, self._gateway.mtu, peers, names.mac_of(addresses))

    def size(self) -> dict[str, int]:
        return {"ways out": len(self._ends()), "ingress devices": int(self._device() is not None)}


class HostKeeping(InTheHost):
    """Settings below /proc/sys, which change in silence: a few microseconds each, so they are looked at often."""

    def __init__(self, audit: HostAudit, ground: Ground) -> None:
        self._audit = audit
        self._ground = ground

    async def observe(self, _key: str) -> list[str]:
        return await self._ground.threads.run(partial(self._look, self._audit.devices()))

    def _look(self, devices: list[str]) -> list[str]:
        problems = [] if sysctl.read(_FORWARD) == "1" else ["net.ipv4.ip_forward is off"]
        shut = [name for name in devices if sysctl.read(f"ipv4/conf/{name}/route_localnet") == "0"]
        return problems + [f"device {name} takes no loopback addresses" for name in shut]

    async def repair(self, key: str) -> None:
        await self._audit.repair(key)

    def size(self) -> dict[str, int]:
        return {}


class PublishedAudit(InTheHost):
    """Verifies the host's table: published ports and the translation of what leaves sandboxes."""

    def __init__(self, ground: Ground, publisher: Publisher, scratch: ruleset.Scratch) -> None:
        self._ground = ground
        self._publisher = publisher
        self._scratch = scratch
        self._right: int | None = None
        """The generation of the rules at which they were found right."""
        self._rules = 0

    async def observe(self, _key: str) -> list[str]:
        return await self._ground.threads.run(self._look)

    def _look(self) -> list[str]:
        netfilter = self._ground.netfilter
        before = ruleset.generation(netfilter)
        if self._right == before:
            return []
        wanted = self._scratch.of_document(self._publisher.document())
        self._rules = sum(len(rules) for shape in wanted.values() for rules in shape.rules.values())
        problems = ruleset.compare(wanted, ruleset.read(netfilter, wanted))
        self._right = before if not problems and ruleset.generation(netfilter) == before else None
        return problems

    async def repair(self, _key: str) -> None:
        await self._publisher.rewrite()

    def size(self) -> dict[str, int]:
        return {"host rules": self._rules}
