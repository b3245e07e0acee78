"""Which addresses of one network are in use, and the next free one.

Addresses are integers inside, and text with a prefix length in objects ("10.0.1.5/24"). Free addresses are handed out
in rising order, starting again only at the end of the range: an address that was just released is not reused while
others may still hold connections to it. Derived: the same holders give the same ranges.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from pyswarm_common.model import Network


def address_number(text: str) -> int:
    """The number of "10.0.1.5", "10.0.1.5/24" or "fd00::5/64"."""
    address = text.partition("/")[0]
    if ":" in address:
        return int(ipaddress.IPv6Address(address))
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


class Range:
    """The addresses of one subnet."""

    __slots__ = ("cursor", "first", "last", "prefix_length", "reserved", "used", "version")

    def __init__(self, subnet: str, reserved: Iterable[str]) -> None:
        network = ipaddress.ip_network(subnet)
        self.version = network.version
        self.prefix_length = network.prefixlen
        low, high = int(network.network_address), int(network.broadcast_address)
        # The lowest address names the network, and in IPv4 the highest is for broadcasts; /31 and /32 have neither.
        narrow = high - low < 2
        self.first = low if narrow else low + 1
        self.last = high - 1 if network.version == 4 and not narrow else high
        self.reserved = frozenset(n for n in map(address_number, reserved) if low <= n <= high)
        self.used: dict[int, int] = {}
        self.cursor = self.first

    def contains(self, number: int) -> bool:
        return self.first <= number <= self.last

    def take(self) -> int | None:
        """The next free address, now used; None if there is none."""
        if len(self.used) + len(self.reserved) > self.last - self.first:
            return None
        number = self.cursor
        while number in self.used or number in self.reserved:
            number = number + 1 if number < self.last else self.first
        self.used[number] = 1
        self.cursor = number + 1 if number < self.last else self.first
        return number

    def text(self, number: int) -> str:
        if self.version == 4:
            return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        return str(ipaddress.IPv6Address(number))


class AddressBook:
    """The ranges of one network. Holders may be seen before the network's own subnets are known."""

    __slots__ = ("_loose", "ranges")

    def __init__(self) -> None:
        self.ranges: tuple[Range, ...] = ()
        self._loose: dict[int, int] = {}

    def set_subnets(self, network: Network) -> None:
        held = self._held()
        self.ranges = tuple(Range(subnet, network.gateways) for subnet in network.subnets)
        self._loose = {}
        self._hold_all(held)

    def adopt(self, other: AddressBook | None) -> None:
        """Take over what was held in the other book."""
        if other is not None:
            self._hold_all(other._held())

    def _held(self) -> dict[int, int]:
        held = dict(self._loose)
        for known in self.ranges:
            held.update(known.used)
        return held

    def _hold_all(self, held: dict[int, int]) -> None:
        for number, count in held.items():
            for _ in range(count):
                self.hold(number)

    def hold(self, number: int) -> None:
        into = self._range_of(number)
        used = self._loose if into is None else into.used
        used[number] = used.get(number, 0) + 1
        if into is not None:
            into.cursor = number + 1 if number < into.last else into.first

    def release(self, number: int) -> None:
        into = self._range_of(number)
        used = self._loose if into is None else into.used
        count = used.get(number, 0)
        if count > 1:
            used[number] = count - 1
        else:
            used.pop(number, None)

    def _range_of(self, number: int) -> Range | None:
        for known in self.ranges:
            if known.contains(number):
                return known
        return None
