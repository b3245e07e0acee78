"""Networks whose addresses each node gives out by itself: what this node knows of their endpoints. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec

from pyswarm_common.network_options import are_addresses_of_cluster
from pyswarm_overlay.types import NetworkTable

from .plan import WantedInterface
from .tables import TableState


def is_local(table: NetworkTable) -> bool:
    """Whether this node gives out the network's addresses, and knows those of its own containers only."""
    return not are_addresses_of_cluster(table.driver, table.ipam_driver, table.config_from)


def localised(state: TableState, local: Mapping[str, tuple[str, ...]]) -> TableState:
    """The managers' table with the addresses that this node gave its endpoints; those of other nodes have none here."""
    endpoints = {
        key: msgspec.structs.replace(record, addresses=local.get(key, ())) for key, record in state.endpoints.items()
    }
    return TableState(state.table, state.version, endpoints, state.services)


def with_default_routes(
    interfaces: tuple[WantedInterface, ...], routes: Mapping[str, tuple[str, ...]]
) -> tuple[WantedInterface, ...]:
    """The default route goes by these networks' gateways (network -> gateways), if there are any, and by no other."""
    if not routes:
        return interfaces
    return tuple(
        dataclasses.replace(interface, gateways=routes.get(interface.network_id or "", ())) for interface in interfaces
    )
