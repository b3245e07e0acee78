"""Taking addresses of a network, one of each family it has, and saying why there is none."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_common.model import Network
from pyswarm_manager.planner.allocate.addresses import Range
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.store.network_claims import block

Taken = tuple[Range, int]


def take(draft: Draft, network: Network) -> list[Taken] | None:
    """One address of each family, or None: nobody gets half of what he needs."""
    ranges = draft.ledger.book(network.id).ranges
    if len(ranges) == 1:  # by far the most
        number = ranges[0].take()
        return None if number is None else [(ranges[0], number)]
    found: list[Taken] = []
    for version in families(draft, network):
        taken = take_family(draft, network, version)
        if taken is None:
            give_back(found)
            return None
        found.append(taken)
    return found or None


def take_family(draft: Draft, network: Network, version: int) -> Taken | None:
    """From the first of the family's subnets that has room."""
    for part in draft.ledger.book(network.id).ranges:
        if part.version == version:
            number = part.take()
            if number is not None:
                return part, number
    return None


def families(draft: Draft, network: Network) -> tuple[int, ...]:
    """4, 6, or both, in the order of the subnets."""
    ranges = draft.ledger.book(network.id).ranges
    if len(ranges) == 1:
        return (ranges[0].version,)
    return tuple(dict.fromkeys(part.version for part in ranges))


def has_room(draft: Draft, network: Network, version: int) -> bool:
    return any(part.version == version and part.has_room for part in draft.ledger.book(network.id).ranges)


def give_back(taken: Iterable[Taken]) -> None:
    """What nobody has seen."""
    for part, number in taken:
        part.release(number, is_fresh=True)


def texts(taken: Iterable[Taken]) -> tuple[str, ...]:
    return tuple(f"{part.text(number)}/{part.prefix_length}" for part, number in taken)


def no_address(network: Network, version: int = 0) -> str:
    subnets = ", ".join(text for text in network.subnets if not version or block(text).version == version)
    return f"no free address left in network {network.spec.name} ({subnets})"
