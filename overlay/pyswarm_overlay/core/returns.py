"""The way back of connections that came in through another node: which rules and routes there should be. Pure.

A connection that another node led here carries its client's own address. The host's table marks its answers with that
node's number (`core.host_rules`); here is what the routing does with such a mark: everything goes to that node's
address on the ingress network, but what is meant for sandboxes and for the ingress network itself, which are here.
Packets without a mark of ours pass all of it with one rule, however many nodes there are.

Also here: who the other nodes are, from the ingress network's table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2s
from ipaddress import ip_address

from pyswarm_overlay.types import EndpointRecord

from .host_rules import Peer
from .names import mac_of

MARK_MASK = 0xFFFF0000
_FIRST_PRIORITY = 20_000
_PRIORITIES = 4


def mark_of(prefix: str) -> int:
    """The upper half of our marks and routing tables: another for each prefix of names, nobody else's we know of."""
    return 0x70010000 | blake2s(prefix.encode(), digest_size=1).digest()[0] << 16


def first_priority(prefix: str) -> int:
    return _FIRST_PRIORITY + _PRIORITIES * blake2s(prefix.encode(), digest_size=1).digest()[0]


@dataclass(frozen=True, slots=True)
class Peers:
    """The other nodes on the ingress network. `keeps_clients`: they can tell by the MAC that a connection is ours."""

    others: tuple[Peer, ...] = ()
    keeps_clients: bool = False

    def of_node(self, node_address: str) -> Peer | None:
        return next((peer for peer in self.others if peer.node_address == node_address), None)


def peers_of(endpoints: Iterable[EndpointRecord], own_addresses: Iterable[str]) -> Peers:
    """Nodes are the endpoints without a service. A number that two of them have is nobody's."""
    own = {address.partition("/")[0] for address in own_addresses}
    nodes = [record for record in endpoints if record.service_id is None and record.addresses]
    places = Counter(record.node_address for record in nodes)
    nodes = [record for record in nodes if places[record.node_address] == 1]
    numbers = Counter(_number(record) for record in nodes)

    def number(record: EndpointRecord) -> int:
        return _number(record) if numbers[_number(record)] == 1 else 0

    others = [
        Peer(record.node_address, record.addresses, (record.mac or mac_of(record.addresses)).lower(), number(record))
        for record in sorted(nodes, key=lambda record: record.addresses)
        if not own.intersection(record.addresses)
    ]
    mine = [number(record) for record in nodes if own.intersection(record.addresses)]
    return Peers(tuple(others), keeps_clients=bool(mine and mine[0]))


def _number(record: EndpointRecord) -> int:
    """The end of the address: it stays the same as long as the node has it, and fits into a conntrack zone."""
    return int.from_bytes(ip_address(record.addresses[0]).packed[-2:], "big")


@dataclass(frozen=True, slots=True)
class ReturnRule:
    """A routing rule of one family, by the step it belongs to (0 to 3)."""

    is_ipv6: bool
    step: int
    number: int = 0
    """Of the peer whose table is looked at."""
    to: str = ""


@dataclass(frozen=True, slots=True)
class Returns:
    """What there should be. `routes`: number of a peer -> its addresses."""

    rules: tuple[ReturnRule, ...] = ()
    routes: tuple[tuple[int, str], ...] = ()
    neighbours: tuple[tuple[str, str], ...] = ()
    """Address and MAC of each peer, so that nobody has to ask for it."""


def returns_of(peers: Peers, own_addresses: Iterable[str], subnets: Iterable[str]) -> Returns:
    """`subnets`: of the sandboxes and of the ingress network. In each family that this node has an address of."""
    rules: list[ReturnRule] = []
    families = {":" in address for address in own_addresses}
    routes = [
        (peer.number, address)
        for peer in peers.others
        for address in peer.addresses
        if peer.number and (":" in address) in families
    ]
    for is_ipv6 in sorted(families):
        numbers = [number for number, address in routes if (":" in address) == is_ipv6]
        if not numbers:
            continue
        here = [subnet for subnet in subnets if (":" in subnet) == is_ipv6]
        rules.append(ReturnRule(is_ipv6, 0))
        rules += [ReturnRule(is_ipv6, 1, to=subnet) for subnet in sorted(set(here))]
        rules += [ReturnRule(is_ipv6, 2, number) for number in numbers]
        rules.append(ReturnRule(is_ipv6, 3))
    neighbours = tuple(
        (address, peer.mac) for peer in peers.others for address in peer.addresses if (":" in address) in families
    )
    return Returns(tuple(rules), tuple(routes), neighbours)
