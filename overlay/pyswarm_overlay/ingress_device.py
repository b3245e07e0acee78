"""This host's own foot on the ingress network: its device, its neighbours there, and the way back through them.

Blocking. Whose answers go back through whom is decided in `core.returns`; here it is compared with what the kernel has.
"""

from __future__ import annotations

import socket
from collections import Counter

from .core import names
from .core.names import mac_of
from .core.plan import diff
from .core.returns import MARK_MASK, Returns, first_priority, mark_of
from .drivers.interface import NetworkDevices
from .ground import Ground
from .kernel import policy_routes, rtnl
from .kernel.netlink import Message
from .kernel.policy_routes import Rule, TableRoute

NO_RETURNS = Returns()


class IngressDevice:
    """This host's own interface on the ingress network."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.name = names.ingress_device(ground.config.prefix)
        self.port = names.network_port(self.name, "host")
        """By which the ingress network's devices know it."""
        self._mark = mark_of(ground.config.prefix)
        self._priority = first_priority(ground.config.prefix)

    def ensure(self, devices: NetworkDevices, addresses: tuple[str, ...], returns: Returns) -> list[str]:
        """One whose tunnel is another one now is made anew."""
        netlink = self._ground.netlink
        link = rtnl.read_link(netlink, self.name)
        done: list[str] = []
        if link is None or not devices.has_port(self.port) or link.mac != mac_of(addresses):
            netlink.transact([rtnl.delete_link_named(self.name)])
            devices.remove_port(self.port)
            self._create(devices, addresses)
            done.append(f"device {self.name} was missing")
            link = rtnl.read_link(netlink, self.name)
            assert link is not None, "a device that was just made"
        messages = self._settings(link, devices.mtu, addresses)
        netlink.transact([*messages, rtnl.allow_loopback_routes(link.index), rtnl.heed_marks(link.index)])
        ways = self._adjust_returns(link.index, returns)
        return done or [f"device {self.name}: {message.what}" for message in [*messages, *ways]]

    def _settings(self, link: rtnl.Link, mtu: int, addresses: tuple[str, ...]) -> list[Message]:
        found = rtnl.read_addresses(self._ground.netlink).get(link.index, set())
        messages = [rtnl.delete_address(link.index, address) for address in sorted(found.difference(addresses))]
        messages += [rtnl.new_address(link.index, address) for address in addresses if address not in found]
        if not link.up:
            messages.append(rtnl.set_link_up(link.index))
        if link.mtu != mtu:
            messages.append(rtnl.set_mtu(link.index, mtu))
        return messages

    def odd_returns(self, returns: Returns) -> list[str]:
        """What of the way back is not as wanted; the device being missing is no matter of this."""
        link = rtnl.read_link(self._ground.netlink, self.name)
        return [] if link is None else [message.what for message in self._return_changes(link.index, returns)]

    def _adjust_returns(self, index: int, returns: Returns) -> list[Message]:
        messages = self._return_changes(index, returns)
        self._ground.netlink.transact(messages)
        return messages

    def _return_changes(self, index: int, returns: Returns) -> list[Message]:
        """Routes before the rules that lead to them; what is taken away in the opposite order."""
        netlink = self._ground.netlink
        wanted = {
            TableRoute(policy_routes.family_of(address), self._mark | number, address, index)
            for number, address in returns.routes
        }
        routes = policy_routes.read_routes(netlink, self._mark, self._mark | 0xFFFF)
        stray, missing = self._rules(returns)
        neighbours = diff(dict(returns.neighbours), rtnl.read_neighbours(netlink, index))
        messages = [policy_routes.delete_rule(rule) for rule in stray]
        messages += [policy_routes.delete_route(route) for route in sorted(routes - wanted)]
        messages += [rtnl.delete_neighbour(index, address) for address in neighbours.remove]
        messages += [rtnl.new_neighbour(index, address, mac) for address, mac in neighbours.put]
        messages += [policy_routes.new_route(route) for route in sorted(wanted - routes)]
        return messages + [policy_routes.new_rule(rule) for rule in missing]

    def _rules(self, returns: Returns) -> tuple[list[Rule], list[Rule]]:
        """(to be removed, to be added)"""
        wanted = Counter(self._rule(one.is_ipv6, one.step, one.number, one.to) for one in returns.rules)
        steps = range(self._priority, self._priority + 4)
        observed = Counter(policy_routes.read_rules(self._ground.netlink, steps))
        return sorted((observed - wanted).elements()), sorted((wanted - observed).elements())

    def _rule(self, is_ipv6: bool, step: int, number: int, to: str) -> Rule:
        family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
        priority, last = self._priority + step, self._priority + 3
        match step:
            case 0:  # what has no mark of ours
                return Rule(family, priority, self._mark, MARK_MASK, goto=last, is_inverted=True)
            case 1:
                return Rule(family, priority, to=to, goto=last)
            case 2:
                return Rule(family, priority, self._mark | number, 0xFFFFFFFF, table=self._mark | number)
            case _:
                return Rule(family, priority)

    def _create(self, devices: NetworkDevices, addresses: tuple[str, ...]) -> None:
        """Made from inside the ingress network's namespace, its other end sent to ours."""
        with open("/proc/thread-self/ns/net", "rb") as home:  # noqa: PTH123  (a descriptor, not a file to read)
            devices.join(self.port, rtnl.VethEnd(self.name, devices.mtu, mac_of(addresses), netns=home.fileno()))

    def remove(self) -> None:
        """With it go its routes; the rules have to be taken."""
        self._ground.netlink.transact([rtnl.delete_link_named(self.name)])
        stray, _missing = self._rules(NO_RETURNS)
        self._ground.netlink.transact([policy_routes.delete_rule(rule) for rule in stray])
