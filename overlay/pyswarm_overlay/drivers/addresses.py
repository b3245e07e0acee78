"""Addresses that a node gives out by itself, for networks that exist on each node for itself. Pure.

What is taken follows from who holds what, so nothing can leak; a free address is looked for behind the last one that
was given, so that one which was just given up is not another's at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

_Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Pool:
    """One subnet of a network on this node, and the part of it that its containers get addresses from."""

    subnet: _Network
    part: _Network
    reserved: frozenset[str]
    """The gateway, and addresses that somebody else has."""

    @staticmethod
    def of(subnet: str, ip_range: str, reserved: Iterable[str]) -> Pool:
        whole = ip_network(subnet)
        return Pool(whole, ip_network(ip_range) if ip_range else whole, frozenset(reserved))

    def contains(self, address: str) -> bool:
        return ip_interface(address).ip in self.subnet

    def text(self, number: int) -> str:
        kind = type(self.subnet.network_address)
        return f"{kind(number)}/{self.subnet.prefixlen}"

    @property
    def bounds(self) -> tuple[int, int]:
        """The first and the last that a container may have: the lowest of a subnet names it, the highest of an IPv4
        subnet is for broadcasts."""
        low, high = int(self.subnet.network_address), int(self.subnet.broadcast_address)
        is_narrow = self.subnet.num_addresses <= 2
        first = low if is_narrow else low + 1
        last = high - 1 if self.subnet.version == 4 and not is_narrow else high
        return max(first, int(self.part.network_address)), min(last, int(self.part.broadcast_address))


def free_address(pool: Pool, is_taken: Callable[[str], bool], after: int = 0) -> str | None:
    """The first free address behind `after`, with the subnet's prefix length; None when there is none."""
    first, last = pool.bounds
    size = last - first + 1
    start = after + 1 if first <= after < last else first
    for step in range(max(size, 0)):
        number = first + (start - first + step) % size
        text = pool.text(number)
        if text.partition("/")[0] not in pool.reserved and not is_taken(text):
            return text
    return None


def pools_of(
    subnets: tuple[str, ...], ip_ranges: tuple[str, ...], gateways: tuple[str, ...], others: Iterable[str]
) -> tuple[Pool, ...]:
    """Each range goes to the subnet that it lies in."""
    reserved = [str(ip_address(text)) for text in (*gateways, *others) if text]
    return tuple(Pool.of(subnet, _range_of(subnet, ip_ranges), reserved) for subnet in subnets)


def _range_of(subnet: str, ip_ranges: tuple[str, ...]) -> str:
    whole = ip_network(subnet)
    for text in ip_ranges:
        part = ip_network(text) if text else whole
        if text and part.version == whole.version and part.subnet_of(whole):  # type: ignore[arg-type]
            return text
    return ""
