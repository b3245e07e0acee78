"""What a network is on this node: its table's words, or those of the configuration-only network that it names. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from pyswarm_common.errors import NotFound
from pyswarm_overlay.types import NetworkTable

from .configs import ConfigNetwork


@dataclass(frozen=True, slots=True)
class Settings:
    network_id: str
    name: str
    driver: str
    options: dict[str, str]
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    ip_ranges: tuple[str, ...]
    auxiliary_addresses: dict[str, str]
    ipam_driver: str
    ipam_options: dict[str, str]
    internal: bool
    ipv6: bool = False


def settings_of(table: NetworkTable, config: ConfigNetwork | None) -> Settings:
    """`config`: this node's configuration-only network of the name that the table gives."""
    if table.config_from and config is None:
        raise NotFound(f"configuration network {table.config_from} was not found on this node: create it there")
    source = table if config is None else config
    return Settings(
        network_id=table.network_id,
        name=table.name,
        driver=table.driver,
        options=source.options,
        subnets=source.subnets,
        gateways=source.gateways,
        ip_ranges=source.ip_ranges,
        auxiliary_addresses=source.auxiliary_addresses,
        ipam_driver=source.ipam_driver,
        ipam_options=source.ipam_options,
        internal=table.internal,
        ipv6=any(":" in subnet for subnet in source.subnets),
    )


class LocalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What this node chose for a network, kept on disk while it has a sandbox on it."""

    network_id: str
    driver: str
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    bridge: str = ""
    """An interface in the host's namespace that is ours."""
