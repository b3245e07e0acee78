"""Verifies sandboxes: interfaces, addresses, routes and neighbours inside, VIP rules and policy, and what keeps them.

Two parts. `SandboxAudit` reads the whole namespace: changes there are heard, so it is asked when there were some, and
in turn. `SandboxKeeping` looks at what changes in silence (the mount of the namespace, the sockets for names); that
costs microseconds, so it is asked often.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping
from functools import partial
from typing import Literal

from pyswarm_overlay.core import comparison, names
from pyswarm_overlay.core.facts import Observed
from pyswarm_overlay.ground import Ground
from pyswarm_overlay.kernel import libc, mending, netns, ruleset
from pyswarm_overlay.kernel.netlink import Message, Netlink
from pyswarm_overlay.policy import Policies
from pyswarm_overlay.sandbox import Builder, LiveSandbox, rule_batches
from pyswarm_overlay.sandboxes import Sandboxes


class SandboxAudit:
    """`live` tells the sandboxes that are up."""

    def __init__(
        self,
        ground: Ground,
        sandboxes: Sandboxes,
        live: Mapping[str, LiveSandbox],
        policies: Policies,
        scratch: ruleset.Scratch,
    ) -> None:
        self._sandboxes = sandboxes
        self._live = live
        self._policies = policies
        self._scratch = scratch
        self._table = names.sandbox_table(ground.config.prefix)
        self._right: dict[str, int] = {}
        """The generation of the rules at which they were found right, by sandbox."""

    @property
    def place(self) -> Literal["sandbox"]:
        return "sandbox"

    def places(self) -> Collection[str]:
        return list(self._live)

    def is_ours(self, key: str, sender: int) -> bool:
        """Whether we changed the rules there."""
        live = self._live.get(key)
        return live is not None and live.sockets.netfilter.port == sender

    async def observe(self, key: str) -> list[str]:
        if key not in self._live:
            self._right.pop(key, None)
        return await self._sandboxes.visit(key, self._look)

    def _look(self, builder: Builder, live: LiveSandbox) -> list[str]:
        found = _inside(live)
        problems = comparison.sandbox_problems(builder.interfaces, found)
        problems += [
            f"port {interface.port} of {interface.name} is missing"
            for interface in builder.interfaces
            if interface.name in found.links and not builder.has_port(interface)
        ]
        return problems + self._rules(live)

    def _rules(self, live: LiveSandbox) -> list[str]:
        netfilter, sandbox_id = live.sockets.netfilter, live.sandbox.sandbox_id
        before = ruleset.generation(netfilter)
        if self._right.get(sandbox_id) == before:
            return []
        wanted = self._scratch.of_batches([*rule_batches(live, self._table), *self._policies.batches(sandbox_id)])
        problems = ruleset.compare(wanted, ruleset.read(netfilter, wanted))
        if not problems and ruleset.generation(netfilter) == before:
            self._right[sandbox_id] = before
        return problems

    async def repair(self, key: str) -> None:
        """What the builder needs first, then the builder, then what it does not look at."""
        await self._sandboxes.visit(key, self._prepare)
        await self._sandboxes.verify(key)
        await self._sandboxes.visit(key, self._mend)

    def _prepare(self, builder: Builder, live: LiveSandbox) -> list[str]:
        """Blocking; moves this thread into the namespace. May take addresses away, which the builder gives again."""
        with _Visit(live) as netlink:
            netlink.transact(_settings(builder, mending.observe(netlink)))
            netlink.transact(_routes(builder, mending.observe(netlink)))
        return []

    def _mend(self, builder: Builder, live: LiveSandbox) -> list[str]:
        """Blocking; moves this thread into the namespace."""
        with _Visit(live) as netlink:
            netlink.transact(_settings(builder, mending.observe(netlink)))
        if self._rules(live):
            for batch in rule_batches(live, self._table):
                live.sockets.netfilter.run_batch(batch)
            self._policies.mend(live.sandbox.sandbox_id)
        return []

    def size(self) -> dict[str, int]:
        chains = sum(len(vips) for live in self._live.values() for vips in live.vips.values())
        return {"sandboxes": len(self._live), "VIPs": chains}


class SandboxKeeping:
    """`live` tells the sandboxes that are up."""

    def __init__(self, ground: Ground, sandboxes: Sandboxes, live: Mapping[str, LiveSandbox]) -> None:
        self._ground = ground
        self._sandboxes = sandboxes
        self._live = live

    @property
    def place(self) -> Literal["sandbox"]:
        return "sandbox"

    def places(self) -> Collection[str]:
        return list(self._live)

    async def observe(self, key: str) -> list[str]:
        """Microseconds, so it needs no thread."""
        live = self._live.get(key)
        if live is None:
            return []
        problems = [] if self._is_kept(key, live) else ["its namespace is not mounted"]
        return problems + ([] if _serves(live) else ["its sockets for names were ended"])

    def _is_kept(self, key: str, live: LiveSandbox) -> bool:
        found = netns.open_existing(self._ground.sandbox_path(key))
        if found is None:
            return False
        own = live.sockets.netfilter.namespace()
        try:
            return os.path.sameopenfile(found, own)
        finally:
            os.close(found)
            os.close(own)

    async def repair(self, key: str) -> None:
        live = self._live.get(key)
        if live is None:
            return
        if not self._is_kept(key, live):
            await self._ground.threads.run(partial(netns.remove, self._ground.sandbox_path(key)))
        if not _serves(live):
            await self._sandboxes.reopen(key)
        await self._sandboxes.verify(key)

    def size(self) -> dict[str, int]:
        return {"name sockets": 2 * len(self._live)}


def _serves(live: LiveSandbox) -> bool:
    """A socket that somebody ended has lost its port, or listens no more."""
    try:
        has_port = live.sockets.udp.getsockname()[1] != 0
        return has_port and bool(live.sockets.tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


class _Visit:
    """A route socket inside; the thread stays there, so it must end with the job."""

    def __init__(self, live: LiveSandbox) -> None:
        fd = live.sockets.netfilter.namespace()
        libc.setns(fd)
        os.close(fd)
        self._netlink = Netlink()

    def __enter__(self) -> Netlink:
        return self._netlink

    def __exit__(self, *_: object) -> None:
        self._netlink.close()


def _inside(live: LiveSandbox) -> Observed:
    with _Visit(live) as netlink:
        return mending.observe(netlink)


def _settings(builder: Builder, found: Observed) -> list[Message]:
    """Interfaces up and as wanted, and no neighbours but those that are learned."""
    messages: list[Message] = []
    for interface in builder.interfaces:
        link = found.links.get(interface.name)
        if link is not None and link.mac == interface.mac:
            messages.append(mending.set_link(link.index, interface.mtu))
            messages += [
                mending.delete_entry(entry)
                for entry in found.neighbours
                if entry.index == link.index and entry.permanent and entry.address
            ]
    return messages


def _routes(builder: Builder, found: Observed) -> list[Message]:
    """To oneself and to one's subnets, of addresses that are there; none that lead elsewhere."""
    messages = [mending.delete_route(route) for route in comparison.wrong_routes(builder.interfaces, found)]
    for interface in builder.interfaces:
        link = found.links.get(interface.name)
        if link is not None and link.up and link.mac == interface.mac:  # else the builder makes it anew
            messages += mending.own_routes(interface.addresses, link.index, found)
    return messages
