"""The names of one network as its table has them, kept up change by change. Pure, but for being changed in place.

A change costs what it changes, not what the network holds. Which of several meanings a name has, in this order:
`tasks.<service>`, `<slot>.<service>`, a service's name, aliases of services, then names, host names and aliases of
single tasks. What several share (an alias, a host name) answers with all their addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from pyswarm_overlay.types import EndpointRecord, NetworkTable, ServicePort, ServiceRecord, TableDelta

TASKS = "tasks."
_Index = dict[str, dict[str, None]]


class Zone:
    """Owned by whoever answers; nobody else changes it."""

    def __init__(self, table: NetworkTable) -> None:
        self.network_id = table.network_id
        self.name = table.name
        self.suffix = "." + table.name.lower()
        self.is_silent = table.ingress
        """Nobody asks for names on the ingress network."""
        self.version = table.version
        self.subnets: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(subnet, strict=False) for subnet in table.subnets
        )
        self._endpoints: dict[str, EndpointRecord] = {}
        self._services: dict[str, ServiceRecord] = {}
        self._endpoint_names: _Index = {}
        self._by_service: _Index = {}
        self._service_names: _Index = {}
        self._service_aliases: _Index = {}
        self._endpoint_of: _Index = {}
        self._service_of: _Index = {}
        for service in table.services:
            self._put_service(service)
        for endpoint in table.endpoints:
            self._put_endpoint(endpoint)

    def apply(self, delta: TableDelta) -> None:
        """Take an increment; that it starts where we are is the caller's care."""
        for endpoint_id in delta.remove_endpoints:
            self._drop_endpoint(endpoint_id)
        for service_id in delta.remove_services:
            self._drop_service(service_id)
        for service in delta.upsert_services:
            self._put_service(service)
        for endpoint in delta.upsert_endpoints:
            self._put_endpoint(endpoint)
        self.version = delta.version

    # -- changes -----------------------------------------------------------------------------------------------------

    def _put_endpoint(self, record: EndpointRecord) -> None:
        self._drop_endpoint(record.endpoint_id)
        self._endpoints[record.endpoint_id] = record
        for index, keys in self._places_of_endpoint(record):
            _enter(index, keys, record.endpoint_id)

    def _drop_endpoint(self, endpoint_id: str) -> None:
        record = self._endpoints.pop(endpoint_id, None)
        if record is not None:
            for index, keys in self._places_of_endpoint(record):
                _strike(index, keys, endpoint_id)

    def _places_of_endpoint(self, record: EndpointRecord) -> Iterator[tuple[_Index, Iterable[str]]]:
        yield self._endpoint_names, [name.lower() for name in (*record.aliases, record.hostname, record.name) if name]
        yield self._by_service, [record.service_id] if record.service_id else []
        yield self._endpoint_of, record.addresses

    def _put_service(self, record: ServiceRecord) -> None:
        self._drop_service(record.service_id)
        self._services[record.service_id] = record
        for index, keys in self._places_of_service(record):
            _enter(index, keys, record.service_id)

    def _drop_service(self, service_id: str) -> None:
        record = self._services.pop(service_id, None)
        if record is not None:
            for index, keys in self._places_of_service(record):
                _strike(index, keys, service_id)

    def _places_of_service(self, record: ServiceRecord) -> Iterator[tuple[_Index, Iterable[str]]]:
        yield self._service_names, [record.name.lower()]
        yield self._service_aliases, [alias.lower() for alias in record.aliases]
        yield self._service_of, record.vips

    # -- questions ---------------------------------------------------------------------------------------------------

    def lookup(self, name: str) -> tuple[str, ...] | None:
        """Addresses of `name` or `name.<this network>`, lower case; None when there is no such name here."""
        found = self._addresses(name)
        if found is None and name.endswith(self.suffix):
            found = self._addresses(name[: -len(self.suffix)])
        return found

    def _addresses(self, name: str) -> tuple[str, ...] | None:
        if self.is_silent:
            return None
        if name.startswith(TASKS):
            services = self.services(name[len(TASKS) :])
            if services:
                return tuple(address for service in services for address in self._ready_addresses(service))
        slot = self._slot(name)
        if slot is not None:
            return slot
        services = self.services(name)
        if services:
            return tuple(address for service in services for address in self._service_addresses(service))
        ids = self._endpoint_names.get(name)
        return None if ids is None else tuple(dict.fromkeys(a for key in ids for a in self._endpoints[key].addresses))

    def services(self, name: str) -> list[ServiceRecord]:
        """Of this name; or else all that have it as an alias."""
        ids = self._service_names.get(name) or self._service_aliases.get(name) or {}
        return [self._services[key] for key in ids]

    def is_missing_slot(self, name: str) -> bool:
        """A number before a name of ours that stands for no task now: nobody else's business."""
        number, _, rest = name.removesuffix(self.suffix).partition(".")
        return number.isdecimal() and bool(self.services(rest))

    def _slot(self, name: str) -> tuple[str, ...] | None:
        """While a task takes over from another, the one that serves; before either does, whoever is there."""
        number, _, rest = name.partition(".")
        if not rest or not number.isdecimal() or len(number) > 9:
            return None
        slot = int(number)
        endpoints = [e for s in self.services(rest) for e in self._tasks(s) if e.slot == slot and slot]
        serving = [endpoint for endpoint in endpoints if endpoint.ready] or endpoints
        return tuple(address for endpoint in serving for address in endpoint.addresses) if serving else None

    def _tasks(self, service: ServiceRecord) -> Iterator[EndpointRecord]:
        return (self._endpoints[key] for key in self._by_service.get(service.service_id, ()))

    def ready_tasks(self, service: ServiceRecord) -> list[EndpointRecord]:
        return [endpoint for endpoint in self._tasks(service) if endpoint.ready]

    def _ready_addresses(self, service: ServiceRecord) -> Iterator[str]:
        return (address for endpoint in self.ready_tasks(service) for address in endpoint.addresses)

    def has_virtual_address(self, service: ServiceRecord) -> bool:
        return service.endpoint_mode == "vip" and bool(service.vips)

    def _service_addresses(self, service: ServiceRecord) -> Iterable[str]:
        return service.vips if self.has_virtual_address(service) else self._ready_addresses(service)

    def name_of(self, address: str) -> str | None:
        """The service or the task that has the address, with the network's name behind it."""
        if self.is_silent:
            return None
        services = self._service_of.get(address)
        if services:
            return f"{self._services[next(iter(services))].name}.{self.name}"
        for endpoint_id in self._endpoint_of.get(address, ()):
            record = self._endpoints[endpoint_id]
            return f"{record.name or record.hostname}.{self.name}"
        return None

    def ports(self, services: Iterable[ServiceRecord], port: str, protocol: str) -> list[tuple[ServiceRecord, int]]:
        """The services' ports of that name, or of that number."""
        return [(service, p.target) for service in services for p in service.ports if _is_port(p, port, protocol)]


def _is_port(port: ServicePort, wanted: str, protocol: str) -> bool:
    return port.protocol == protocol and wanted in (port.name.lower(), str(port.target))


def _enter(index: _Index, keys: Iterable[str], value: str) -> None:
    for key in keys:
        index.setdefault(key, {})[value] = None


def _strike(index: _Index, keys: Iterable[str], value: str) -> None:
    for key in keys:
        found = index.get(key)
        if found is not None:
            found.pop(value, None)
            if not found:
                del index[key]
