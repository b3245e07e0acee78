"""A network's table as this host holds it: full state, then increments, and what follows from it.

`TableState` is never changed, only replaced. What follows from a state (VIP backends, tunnel entries, names) is
computed once, when first asked for. A delta that does not start at the version we hold is refused: the caller then asks
for the full state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pyswarm_common.addresses import is_ipv6
from pyswarm_overlay.types import EndpointRecord, NetworkTable, ServiceRecord, TableDelta

from .affinity import chosen
from .names import mac_of


@dataclass(frozen=True, slots=True)
class Tunnels:
    """Peers on other hosts: MAC -> underlay address, and address -> MAC."""

    forwarding: dict[str, str]
    neighbours: dict[str, str]


@dataclass(frozen=True)
class TableState:
    """One network at one version. `table` holds everything but the current endpoints and services."""

    table: NetworkTable
    version: int
    endpoints: dict[str, EndpointRecord]
    services: dict[str, ServiceRecord]

    @staticmethod
    def of(table: NetworkTable) -> TableState:
        return TableState(
            table=table,
            version=table.version,
            endpoints={record.endpoint_id: record for record in table.endpoints},
            services={record.service_id: record for record in table.services},
        )

    def after(self, delta: TableDelta) -> TableState | None:
        """The next state, or None when the delta starts elsewhere."""
        if delta.from_version != self.version:
            return None
        endpoints = {key: value for key, value in self.endpoints.items() if key not in delta.remove_endpoints}
        endpoints.update((record.endpoint_id, record) for record in delta.upsert_endpoints)
        services = {key: value for key, value in self.services.items() if key not in delta.remove_services}
        services.update((record.service_id, record) for record in delta.upsert_services)
        return TableState(self.table, delta.version, endpoints, services)

    def to_table(self) -> NetworkTable:
        """The whole table again, to be kept on disk."""
        table = self.table
        return NetworkTable(
            network_id=table.network_id,
            name=table.name,
            vni=table.vni,
            subnets=table.subnets,
            gateways=table.gateways,
            mtu=table.mtu,
            internal=table.internal,
            ingress=table.ingress,
            driver=table.driver,
            options=table.options,
            config_from=table.config_from,
            ip_ranges=table.ip_ranges,
            auxiliary_addresses=table.auxiliary_addresses,
            ipam_driver=table.ipam_driver,
            ipam_options=table.ipam_options,
            version=self.version,
            endpoints=tuple(self.endpoints.values()),
            services=tuple(self.services.values()),
        )

    @cached_property
    def ready_by_service(self) -> dict[str, list[EndpointRecord]]:
        found: dict[str, list[EndpointRecord]] = {}
        for record in self.endpoints.values():
            if record.ready and record.service_id and record.addresses:
                found.setdefault(record.service_id, []).append(record)
        return found

    @cached_property
    def vips(self) -> dict[str, tuple[str, ...]]:
        """VIP -> addresses of the ready backends of its family, sorted. Empty for the ingress network."""
        found: dict[str, tuple[str, ...]] = {}
        if self.table.ingress:
            return found
        for service in self.services.values():
            if service.endpoint_mode != "vip":
                continue
            ready = self.ready_by_service.get(service.service_id, [])
            addresses = sorted(address for record in ready for address in record.addresses)
            for vip in service.vips:
                found[vip] = tuple(address for address in addresses if (":" in address) == (":" in vip))
        return found

    def vips_seen_by(self, addresses: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The VIPs of one endpoint with these addresses: of its families, and with affinity one backend each."""
        sources = {is_ipv6(address): address.partition("/")[0] for address in reversed(addresses)}
        seen = self._vips_by_families[frozenset(sources)]
        if not self._sticky_vips:
            return seen
        found = dict(seen)
        for vip in self._sticky_vips.intersection(seen):
            backend = chosen(sources[is_ipv6(vip)], seen[vip])
            found[vip] = () if backend is None else (backend,)
        return found

    @cached_property
    def _vips_by_families(self) -> dict[frozenset[bool], dict[str, tuple[str, ...]]]:
        """By whether they are of IPv6; all sandboxes share them."""
        ipv4 = {vip: backends for vip, backends in self.vips.items() if not is_ipv6(vip)}
        ipv6 = {vip: backends for vip, backends in self.vips.items() if is_ipv6(vip)}
        families = {frozenset({False}): ipv4, frozenset({True}): ipv6, frozenset({False, True}): self.vips}
        return {frozenset(): {}, **families}

    @cached_property
    def _sticky_vips(self) -> frozenset[str]:
        sticky = (service for service in self.services.values() if service.session_affinity == "client_ip")
        return frozenset(vip for service in sticky for vip in service.vips)

    @cached_property
    def _addresses_by_service(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for record in self.endpoints.values():
            service = self.services.get(record.service_id or "")
            if service is not None:
                found.setdefault(service.name, []).extend(record.addresses)
        return {name: tuple(addresses) for name, addresses in found.items()}

    def addresses_by_service(self, name: str) -> tuple[str, ...]:
        """Of every endpoint of the service of this name, ready or not."""
        return self._addresses_by_service.get(name, ())

    @cached_property
    def addresses(self) -> frozenset[str]:
        """Every endpoint's addresses, ready or not."""
        return frozenset(address for record in self.endpoints.values() for address in record.addresses)

    @cached_property
    def backends(self) -> frozenset[str]:
        """Of all VIPs."""
        return frozenset(backend for backends in self.vips.values() for backend in backends)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Address -> endpoint."""
        return {address: record.endpoint_id for record in self.endpoints.values() for address in record.addresses}

    def turned_over(self, before: TableState | None) -> tuple[frozenset[str], frozenset[str]]:
        """Addresses (withdrawn, gone) since then: no longer backends; no longer there, or somebody else's."""
        if before is None or before is self:
            return frozenset(), frozenset()
        gone = {address for address, owner in before.owners.items() if self.owners.get(address) != owner}
        return before.backends - self.backends, frozenset(gone)

    def tunnels(self, node_address: str) -> Tunnels:
        forwarding: dict[str, str] = {}
        neighbours: dict[str, str] = {}
        for record in self.endpoints.values():
            if record.node_address == node_address or not record.addresses:
                continue
            if is_ipv6(record.node_address) != is_ipv6(node_address):
                continue  # a tunnel has one family: `following` says so
            mac = (record.mac or mac_of(record.addresses)).lower()
            forwarding[mac] = record.node_address
            neighbours.update((address, mac) for address in record.addresses)
        return Tunnels(forwarding, neighbours)
