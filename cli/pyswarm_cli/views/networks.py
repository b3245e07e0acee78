"""Rows of `network ls`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import iso_time, short_id
from pyswarm_common.codec import timestamp

PREDEFINED = frozenset({"bridge", "host", "none"})

COLUMNS = Columns(
    headings={
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Ingress": "INGRESS",
        "CreatedAt": "CREATED AT",
        "Labels": "LABELS",
    },
    table=("ID", "Name", "Driver", "Scope"),
)


def row(network: Any, *, no_trunc: bool = False) -> Row:
    """One line of `network ls`."""
    spec, subnets = network.spec, network.subnets or network.spec.subnets
    return {
        "ID": network.id if no_trunc else short_id(network.id),
        "Name": spec.name,
        "Driver": spec.driver or "overlay",
        "Scope": scope_of(network),
        "IPv4": has_ipv4(subnets),
        "IPv6": has_ipv6(subnets, asked=spec.ipv6),
        "Internal": spec.internal,
        "Ingress": spec.ingress,
        "CreatedAt": iso_time(timestamp(network.meta.created_at)),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(spec.labels.items())),
    }


def has_ipv4(subnets: Sequence[str]) -> bool:
    """Whether a network gives out IPv4 addresses. One without subnets has, or will have, one of IPv4."""
    return not subnets or any(":" not in subnet for subnet in subnets)


def has_ipv6(subnets: Sequence[str], *, asked: bool) -> bool:
    """Whether it gives out IPv6 addresses."""
    return asked or any(":" in subnet for subnet in subnets)


def scope_of(network: Any) -> str:
    """Whose it is: the whole swarm's, or one machine's."""
    return "local" if network.spec.config_only or network.spec.name in PREDEFINED else "swarm"


def is_wanted(network: Any, wanted: Mapping[str, Sequence[str]]) -> bool:
    """By the filters that are about what the list shows: driver, scope, and type (custom or builtin)."""
    shown = {
        "driver": network.spec.driver or "overlay",
        "scope": scope_of(network),
        "type": "builtin" if network.spec.name in PREDEFINED else "custom",
    }
    return all(not wanted.get(key) or value in wanted[key] for key, value in shown.items())
