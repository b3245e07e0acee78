"""Addresses that a service has for good: its virtual ones, and one for each of its slots. Pure.

In a spec an entry is one address ("10.0.1.10") or a range of them ("10.0.1.10-10.0.1.19"); slot n has the n-th of each
family, counted over all entries in their order. They are kept for the service whether its tasks run or not. Decides
what entries mean and whether two services want the same address; whether an address is on its network at all, and
whether something else holds it, the API says when the service is written. Who acts next: the planner gives them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from pyswarm_common.errors import AlreadyExists
from pyswarm_common.model import Network, NetworkAttachmentSpec, Service

MAX_ADDRESSES = 10_000
"""Of one service on one network."""


class Span(NamedTuple):
    """Addresses from the lowest to the highest."""

    version: int
    low: int
    high: int

    @property
    def size(self) -> int:
        return self.high - self.low + 1

    def overlap(self, other: Span) -> int | None:
        """The first number that both have."""
        low = max(self.low, other.low)
        return low if self.version == other.version and low <= min(self.high, other.high) else None


@lru_cache(maxsize=4096)
def spans(entries: tuple[str, ...]) -> tuple[Span, ...]:
    """What the entries say. Raises ValueError, with a sentence, for what is no address."""
    return tuple(map(_span, entries))


def _span(entry: str) -> Span:
    low_text, dash, high_text = entry.partition("-")
    low = _address(low_text, entry)
    high = _address(high_text, entry) if dash else low
    if low.version != high.version or int(high) < int(low):
        raise ValueError(f"invalid range of addresses {entry!r}: it should be like 10.0.1.10-10.0.1.19")
    return Span(low.version, int(low), int(high))


def _address(text: str, entry: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"invalid address {entry[:80]!r}: it should be like 10.0.1.10 or fd00::10") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"invalid address {entry[:80]!r}: it belongs to an interface")
    return address


def known_spans(entries: tuple[str, ...]) -> tuple[Span, ...]:
    """Of entries that were let in; what cannot be read is none."""
    try:
        return spans(entries)
    except ValueError:
        return ()


def address_of_slot(attachment: NetworkAttachmentSpec, version: int, slot: int) -> int | None:
    """What the slot has of the family; None if the entries end before, or there are none of the family."""
    left = slot - 1
    for span in known_spans(attachment.addresses):
        if span.version != version:
            continue
        if left < span.size:
            return span.low + left
        left -= span.size
    return None


def count_of(attachment: NetworkAttachmentSpec, version: int) -> int:
    """For how many slots there are addresses of the family; zero: they are chosen."""
    return sum(span.size for span in known_spans(attachment.addresses) if span.version == version)


def virtual_address(attachment: NetworkAttachmentSpec, version: int) -> int | None:
    """The service's own one of the family, if the user chose it."""
    return next((span.low for span in known_spans(attachment.virtual_addresses) if span.version == version), None)


def is_static(attachments: Iterable[NetworkAttachmentSpec]) -> bool:
    """Whether tasks have addresses by their slot, so that two tasks of a slot cannot be beside each other."""
    return any(attachment.addresses for attachment in attachments)


def all_spans(attachment: NetworkAttachmentSpec) -> tuple[Span, ...]:
    if not attachment.addresses and not attachment.virtual_addresses:
        return ()
    return (*known_spans(attachment.virtual_addresses), *known_spans(attachment.addresses))


def numbers(attachment: NetworkAttachmentSpec) -> Iterator[int]:
    """All that are kept for the service on this network."""
    for span in all_spans(attachment):
        yield from range(span.low, min(span.high, span.low + MAX_ADDRESSES - 1) + 1)


def text_of(version: int, number: int) -> str:
    return str(IPv4Address(number) if version == 4 else IPv6Address(number))


def check_static(
    service: Service, old: Service | None, others: Iterable[Service], network: Callable[[str], Network | None]
) -> None:
    """Refuse static addresses that another service has, so that of two made at the same time one is refused."""
    if old is not None and old.spec.task.networks == service.spec.task.networks:
        return
    wanted = {item.target: found for item in service.spec.task.networks if (found := all_spans(item))}
    if not wanted:
        return
    for other in others:
        if other.id != service.id:
            _check_against(other, wanted, network)


def _check_against(
    other: Service, wanted: dict[str, tuple[Span, ...]], network: Callable[[str], Network | None]
) -> None:
    for target, mine in wanted.items():
        for span in _spans_on(other, target):
            for own in mine:
                number = own.overlap(span)
                if number is not None:
                    found = network(target)
                    name = found.spec.name if found is not None else target
                    text = text_of(own.version, number)
                    raise AlreadyExists(f"address {text} of network {name} is in use by service {other.spec.name}")


def _spans_on(service: Service, target: str) -> Iterator[Span]:
    for attachment in service.spec.task.networks:
        if attachment.target == target:
            yield from all_spans(attachment)
    for vip in service.endpoint.vips:
        if vip.network_id == target:
            yield from known_spans((vip.address.partition("/")[0],))
