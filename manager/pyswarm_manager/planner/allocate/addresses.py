"""Which addresses of one network are in use, and the next free one.

Addresses are integers inside, and text with a prefix length in objects ("10.0.1.5/24"). Free addresses are handed out
in rising order; one that was released comes again only when there is no fresh one left, the one released longest ago
first: others may still hold connections to it. What a network or a service keeps for somebody (gateways, auxiliary and
static addresses) is handed out to nobody. Derived: the same holders give the same ranges. Nothing here walks over a
subnet, which may be a /8 or a /64: a fresh address is found in as many steps as there are holders in its way, once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from pyswarm_common.model import Network

MAX_FREED = 1 << 16
"""Released addresses of a range that are remembered; those forgotten are found again at the range's next lap."""


def address_number(text: str) -> int:
    """The number of "10.0.1.5", "10.0.1.5/24" or "fd00::5/64"."""
    address = text.partition("/")[0]
    if ":" in address:
        return int(ipaddress.IPv6Address(address))
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


class Position(NamedTuple):
    """Where a range goes on."""

    fresh: int
    head: int
    freed: int


class Range:
    """The addresses of one subnet, handed out from the whole of it or from a part."""

    __slots__ = (
        "_freed",
        "_fresh",
        "_head",
        "_high",
        "_low",
        "_occupied",
        "blocked",
        "first",
        "last",
        "prefix_length",
        "subnet",
        "used",
        "version",
    )

    def __init__(self, subnet: str, blocked: Iterable[str] = (), pool: str = "") -> None:
        """`pool` is the part that addresses are handed out from; others of the subnet may be held all the same."""
        whole = ipaddress.ip_network(subnet)
        self.subnet = subnet
        self.version = whole.version
        self.prefix_length = whole.prefixlen
        self._low, self._high = int(whole.network_address), int(whole.broadcast_address)
        # The lowest address names the network, and in IPv4 the highest is for broadcasts; /31 and /32 have neither.
        narrow = self._high - self._low < 2
        first = self._low if narrow else self._low + 1
        last = self._high - 1 if whole.version == 4 and not narrow else self._high
        part = ipaddress.ip_network(pool or subnet)
        self.first = max(first, int(part.network_address))
        self.last = min(last, int(part.broadcast_address))
        self.used: dict[int, int] = {}
        self.blocked: dict[int, int] = {}
        """Kept for somebody; how often, since a gateway may be named by more than one rule."""
        self._occupied = 0
        self._fresh = self.first
        self._freed: list[int] = []
        self._head = 0
        for number in map(address_number, blocked):
            if self.contains(number):
                self.block(number)

    def contains(self, number: int) -> bool:
        """Whether the number is of the subnet."""
        return self._low <= number <= self._high

    @property
    def has_room(self) -> bool:
        return self._occupied <= self.last - self.first

    @property
    def free(self) -> int:
        """How many addresses can still be handed out."""
        return max(0, self.last - self.first + 1 - self._occupied)

    def take(self) -> int | None:
        """The next free address, now used; None if there is none."""
        if self._occupied > self.last - self.first:
            return None
        number = self._fresh
        if number <= self.last and number not in self.used and number not in self.blocked:
            self._fresh = number + 1
        else:
            number = self._search()
        self.used[number] = 1
        self._occupied += 1
        return number

    def hold(self, number: int) -> None:
        """Somebody has the address."""
        count = self.used.get(number, 0)
        self.used[number] = count + 1
        if count:
            return
        if number not in self.blocked and self.first <= number <= self.last:
            self._occupied += 1
            self._pass_by(number)

    def release(self, number: int, *, is_fresh: bool = False) -> None:
        """One holder less. `is_fresh`: nobody has seen it, so it need not be kept back."""
        count = self.used.get(number, 0)
        if count > 1:
            self.used[number] = count - 1
            return
        if self.used.pop(number, None) is not None and number not in self.blocked:
            self._vacate(number, is_fresh=is_fresh)

    def block(self, number: int) -> None:
        """Hand it out to nobody."""
        count = self.blocked.get(number, 0)
        self.blocked[number] = count + 1
        if not count and number not in self.used and self.first <= number <= self.last:
            self._occupied += 1

    def unblock(self, number: int) -> None:
        count = self.blocked.get(number, 0)
        if count > 1:
            self.blocked[number] = count - 1
            return
        if self.blocked.pop(number, None) is not None and number not in self.used:
            self._vacate(number)

    def position(self) -> Position:
        """To go back to after a plan."""
        self._forget_old()
        return Position(self._fresh, self._head, len(self._freed))

    def go_back(self, position: Position) -> None:
        self._fresh, self._head = position.fresh, position.head
        del self._freed[position.freed :]

    def text(self, number: int) -> str:
        if self.version == 4:
            return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        return str(ipaddress.IPv6Address(number))

    def _vacate(self, number: int, *, is_fresh: bool = False) -> None:
        if self.first <= number <= self.last:
            self._occupied -= 1
            if not is_fresh:
                self._freed.append(number)

    def _is_free(self, number: int) -> bool:
        return number not in self.used and number not in self.blocked

    def _search(self) -> int:
        """There is room."""
        number = self._next_fresh()
        if number is None:
            number = self._next_freed()
        if number is None:
            self._fresh = self.first
            number = self._next_fresh()
        assert number is not None, "a range with room has a free address"
        return number

    def _next_fresh(self) -> int | None:
        number = self._fresh
        while number <= self.last and not self._is_free(number):
            number += 1
        self._fresh = number + 1
        return number if number <= self.last else None

    def _next_freed(self) -> int | None:
        while self._head < len(self._freed):
            number = self._freed[self._head]
            self._head += 1
            if self._is_free(number):
                return number
        return None

    def _pass_by(self, number: int) -> None:
        """Somebody else took it, or this range before a plan was undone: go on behind it."""
        if self._head < len(self._freed) and self._freed[self._head] == number:
            self._head += 1
        elif self._fresh <= number:
            self._fresh = number + 1

    def _forget_old(self) -> None:
        """Only between plans: positions count from the front."""
        gone = max(self._head, len(self._freed) - MAX_FREED)
        if gone > MAX_FREED // 16 or gone == len(self._freed):
            del self._freed[:gone]
            self._head = max(0, self._head - gone)


class AddressBook:
    """The ranges of one network. Holders may be seen before the network's own subnets are known."""

    __slots__ = ("_kept", "_loose", "ranges")

    def __init__(self) -> None:
        self.ranges: tuple[Range, ...] = ()
        self._loose: dict[int, int] = {}
        self._kept: dict[int, int] = {}
        """Static addresses of services."""

    def set_subnets(self, network: Network) -> None:
        held = self._held()
        blocked = (*network.gateways, *network.spec.auxiliary_addresses.values())
        self.ranges = tuple(Range(subnet, blocked, _pool_of(subnet, network)) for subnet in network.subnets)
        self._loose = {}
        kept, self._kept = self._kept, {}
        for number, count in kept.items():
            for _ in range(count):
                self.keep(number)
        self._hold_all(held)

    def adopt(self, other: AddressBook | None) -> None:
        """Take over what was held in the other book."""
        if other is not None:
            self._hold_all(other._held())

    def is_held(self, number: int) -> bool:
        into = self.range_of(number)
        return number in (self._loose if into is None else into.used)

    def hold(self, number: int) -> None:
        into = self.range_of(number)
        if into is not None:
            into.hold(number)
        else:
            self._loose[number] = self._loose.get(number, 0) + 1

    def release(self, number: int) -> None:
        into = self.range_of(number)
        if into is not None:
            into.release(number)
        else:
            _less(self._loose, number)

    def keep(self, number: int) -> None:
        """A service has it as a static address: nobody else is given it, whether it is used now or not."""
        self._kept[number] = self._kept.get(number, 0) + 1
        into = self.range_of(number)
        if into is not None:
            into.block(number)

    def give_up(self, number: int) -> None:
        """The other way round."""
        _less(self._kept, number)
        into = self.range_of(number)
        if into is not None:
            into.unblock(number)

    def range_of(self, number: int) -> Range | None:
        for known in self.ranges:
            if known.contains(number):
                return known
        return None

    def _held(self) -> dict[int, int]:
        held = dict(self._loose)
        for known in self.ranges:
            held.update(known.used)
        return held

    def _hold_all(self, held: dict[int, int]) -> None:
        for number, count in held.items():
            for _ in range(count):
                self.hold(number)


def _pool_of(subnet: str, network: Network) -> str:
    """The subnet's range to hand out from, if the user gave one."""
    if not network.spec.ip_ranges:
        return ""
    whole = ipaddress.ip_network(subnet)
    for text in network.spec.ip_ranges:
        part = ipaddress.ip_network(text)
        if part.version == whole.version and part.subnet_of(whole):  # type: ignore[arg-type]
            return text
    return ""


def _less(counts: dict[int, int], number: int) -> None:
    count = counts.get(number, 0)
    if count > 1:
        counts[number] = count - 1
    else:
        counts.pop(number, None)
