"""What networks may not share: addresses and VXLAN identifiers. Pure.

Decided in apply, so that of two networks made at the same time, or of one that is made while the planner chooses for
another, one is refused. Overlays only: what a driver of the nodes does with its addresses is the nodes' business.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from pyswarm_common.errors import AlreadyExists
from pyswarm_common.model import Network, NetworkSpec
from pyswarm_common.network_options import are_addresses_of_cluster, overlay_options


class Block(NamedTuple):
    """The addresses of a subnet."""

    version: int
    low: int
    high: int

    def touches(self, other: Block) -> bool:
        return self.version == other.version and self.low <= other.high and other.low <= self.high

    def covers(self, other: Block) -> bool:
        return self.version == other.version and self.low <= other.low and other.high <= self.high


@lru_cache(maxsize=1 << 16)
def block(text: str) -> Block:
    subnet = ipaddress.ip_network(text, strict=False)
    return Block(subnet.version, int(subnet.network_address), int(subnet.broadcast_address))


def is_overlay(spec: NetworkSpec) -> bool:
    """Whether the network spans nodes, so that the cluster gives out its addresses."""
    return spec.driver in ("", "overlay") and not spec.config_only


def has_addresses(spec: NetworkSpec) -> bool:
    """Whether the managers give out its addresses, whatever its driver."""
    return not spec.config_only and are_addresses_of_cluster(spec.driver, spec.ipam_driver, spec.config_from)


def is_allocated(network: Network) -> bool:
    """Whether its addresses can be given out."""
    return bool(network.vni) if is_overlay(network.spec) else has_addresses(network.spec) and bool(network.subnets)


def subnets_of(network: Network) -> tuple[str, ...]:
    """Those it has, or will have."""
    return network.subnets or network.spec.subnets


def vni_of(network: Network) -> int:
    """Its VXLAN identifier, or the one it asks for; zero: it will be given one."""
    return network.vni or (overlay_options(network.spec.options).vni if network.spec.options else 0)


def check_claims(network: Network, old: Network | None, others: Iterable[Network]) -> None:
    """Refuse what another network has."""
    if not is_overlay(network.spec):
        return
    if old is not None and (old.vni, old.subnets) == (network.vni, network.subnets):
        return
    for other in others:
        if other.id != network.id and is_overlay(other.spec):
            check_apart(subnets_of(network), vni_of(network), other)


def check_apart(subnets: Iterable[str], vni: int, other: Network) -> None:
    """Refuse a subnet or an identifier of this other network."""
    if vni and vni == vni_of(other):
        raise AlreadyExists(
            f"VXLAN network identifier {vni} is in use by network {other.spec.name}: choose another one"
        )
    for text in subnets_of(other):
        for subnet in subnets:
            if block(subnet).touches(block(text)):
                raise AlreadyExists(
                    f"subnet {subnet} overlaps {text} of network {other.spec.name}: choose another subnet"
                )
