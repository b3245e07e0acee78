"""Who may open connections to a sandbox: decided from the network tables. Pure.

A service that names no sources lets everybody in, and its sandboxes get no rules at all. Otherwise a connection must
come from an endpoint of a service that is named, over a network on which both are, or (with "ingress") through this
host's ports. A name that no service has matches nobody. What a sandbox opens itself, and the answers to it, are no
matter of policy. The shell `policy` writes this into the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .tables import TableState

INGRESS = "ingress"
NOBODY = "none"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is let in, beyond answers: sources by the interface they come in at, and whole interfaces."""

    sources: frozenset[tuple[str, str]]
    """(interface, address)"""
    open: frozenset[str]
    """Interfaces that published ports lead to."""


def lost(before: Policy | None, after: Policy) -> Callable[[str], bool]:
    """Tells of a peer's address whether connections that it opened before may not be any more.

    Behind an open interface there may be anybody, so there only those are told that were let in by name.
    """
    kept = {"127.0.0.1", "::1", *(address for _interface, address in after.sources)}
    named = set() if before is None else {address for _interface, address in before.sources}
    is_open = bool(after.open)
    return lambda peer: peer not in kept and (not is_open or peer in named)


@dataclass(frozen=True, slots=True)
class Places:
    """A sandbox's interfaces: by network, and the one through which its host reaches it."""

    by_network: Mapping[str, str]
    way_out: str | None


def has_policy(state: TableState, service_id: str) -> bool:
    record = state.services.get(service_id)
    return record is not None and bool(record.allow_from)


def policy_of(service_id: str, places: Places, states: Iterable[TableState]) -> Policy | None:
    """The policy of a service's sandbox on these networks; None: everybody."""
    known = list(states)
    if not any(has_policy(state, service_id) for state in known):
        return None
    sources: set[tuple[str, str]] = set()
    is_open = False
    for state in known:
        record = state.services.get(service_id)
        allowed = () if record is None else record.allow_from
        is_open = is_open or INGRESS in allowed
        interface = places.by_network.get(state.table.network_id)
        if interface is not None and not state.table.ingress:
            sources.update((interface, address) for name in allowed for address in state.addresses_by_service(name))
    return Policy(frozenset(sources), _outside(places, known) if is_open else frozenset())


def _outside(places: Places, states: Iterable[TableState]) -> frozenset[str]:
    """Published ports lead in through the way out (tasks of this host) and the ingress network (those of others)."""
    ingress = [places.by_network.get(state.table.network_id) for state in states if state.table.ingress]
    return frozenset(name for name in (*ingress, places.way_out) if name is not None)
