"""The far side of a way: the backend's interface, who is let in, and whether something listens."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

from pyswarm_overlay.core import comparison, names, ways
from pyswarm_overlay.core.facts import Observed
from pyswarm_overlay.core.plan import WantedInterface
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import libc, mending
from pyswarm_overlay.kernel.netlink import NETLINK_SOCK_DIAG, Message, Netlink
from pyswarm_overlay.networks import Networks
from pyswarm_overlay.reports import FROM_OUTSIDE, Hop, Step
from pyswarm_overlay.sandbox import Builder, LiveSandbox
from pyswarm_overlay.sandboxes import Sandboxes

from .published import PublishedSide

_BY_FAMILY = 20
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


class FarSide:
    """Owned by `OverlayHost`."""

    def __init__(self, ground: Ground, networks: Networks, sandboxes: Sandboxes, published: PublishedSide) -> None:
        self._ground = ground
        self._networks = networks
        self._sandboxes = sandboxes
        self._published = published

    async def look(self, sandbox_id: str, hop: Hop, port: int, protocol: str) -> tuple[Step, ...]:
        found: list[Step] = []

        def see(builder: Builder, live: LiveSandbox) -> list[str]:
            found.extend(self._inside(builder, live, hop, port, protocol))
            return []

        await self._sandboxes.visit(sandbox_id, see)
        if found and hop.source_address == FROM_OUTSIDE:
            found.insert(0, self._published.leads_on(sandbox_id, port, protocol))
        return tuple(found) or (Step("stop", "interface", f"the container behind {hop.address} is not up there"),)

    def _inside(self, builder: Builder, live: LiveSandbox, hop: Hop, port: int, protocol: str) -> list[Step]:
        """Blocking; moves this thread into the namespace."""
        fd = live.sockets.netfilter.namespace()
        libc.setns(fd)
        os.close(fd)
        netlink = Netlink()
        try:
            observed = mending.observe(netlink)
        finally:
            netlink.close()
        ported = self._entrance(builder, hop)
        if hop.source_address == FROM_OUTSIDE and ported is not None:
            hop = replace(hop, address=ported.addresses[0].partition("/")[0])
        steps = [_interface(builder, hop, observed)]
        if ported is not None and ported.network_id is not None and not builder.has_port(ported):
            missing = f"its port {ported.port} on network {hop.network_name} is missing"
            steps.append(Step("stop", "interface", missing))
        steps += self._policy(live, hop, ported.name if ported is not None else "")
        if port:
            steps.append(_socket(hop.address, hop.port or port, protocol))
        return steps

    def _entrance(self, builder: Builder, hop: Hop) -> WantedInterface | None:
        """By which such packets come in: of published ports the way out or, without one, the ingress network's."""
        by_network = {one.network_id: one for one in builder.interfaces}
        if hop.source_address != FROM_OUTSIDE:
            return by_network.get(hop.network_id)
        ingress = self._networks.ingress()
        return by_network.get(None) or (by_network.get(ingress.state.table.network_id) if ingress else None)

    def _policy(self, live: LiveSandbox, hop: Hop, interface: str) -> list[Step]:
        if not hop.source_address:
            return []
        table = names.policy_table(self._ground.config.prefix)
        who = "published ports" if hop.source_address == FROM_OUTSIDE else hop.source_address
        verdict = self._networks.policies.lets_in(live.sandbox.sandbox_id, interface, hop.source_address)
        if verdict is None:
            return [Step("ok", "policy", "it lets everybody in")]
        if verdict:
            return [Step("ok", "policy", f"its policy lets {who} in ({table})")]
        return [Step("stop", "policy", f"its policy does not let {who} in ({table}): see --allow-from")]


def _interface(builder: Builder, hop: Hop, observed: Observed) -> Step:
    problems = comparison.sandbox_problems(builder.interfaces, observed)
    if problems:
        return Step("stop", "interface", "; ".join(problems[:5]))
    if not any(entry.address.partition("/")[0] == hop.address for entry in observed.addresses):
        return Step("stop", "interface", f"no interface of the container has {hop.address}")
    return Step("ok", "interface", f"its interface is up and has {hop.address}")


def _socket(address: str, port: int, protocol: str) -> Step:
    """In the calling thread's namespace."""
    number = _PROTOCOLS.get(protocol)
    if number is None:
        return Step("warning", "socket", f"whether something listens at {protocol} port {port} is not known")
    netlink = Netlink(NETLINK_SOCK_DIAG)
    try:
        bodies = [
            body
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in netlink.dump(Message("list sockets", _BY_FAMILY, 0, ways.sockets_question(family, number)))
        ]
    finally:
        netlink.close()
    waiting = ways.listeners(bodies, port)
    if ways.is_served_at(address, waiting):
        return Step("ok", "socket", f"something listens at {protocol} port {port}")
    if waiting:
        return Step("stop", "socket", f"at {protocol} port {port} something listens on {', '.join(waiting)} only")
    return Step("stop", "socket", f"nothing listens at {protocol} port {port}")
