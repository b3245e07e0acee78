"""What a name means to one sandbox: an answer, nothing, no such name, or somebody else's business.

Rules, in this order: a name known on one of the sandbox's networks (in the order of its attachments; never the ingress
network) is answered from there and never forwarded, whatever the type of the question. `tasks.<service>` of a service
without ready tasks exists and is empty. An unknown name of one label does not exist. Addresses inside our subnets are
never asked of others. All else is forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from . import dns_message as dns
from .tables import TableState


@dataclass(frozen=True, slots=True)
class Answer:
    """Records to send, perhaps none: the name exists."""

    records: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class NoSuchName:
    """NXDOMAIN."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask the host's resolvers."""


Decision = Answer | NoSuchName | Forward
NO_SUCH_NAME = NoSuchName()
FORWARD = Forward()


@dataclass(frozen=True)
class Names:
    """The names of one network, lower case, computed from its table once per version."""

    state: TableState

    @cached_property
    def addresses(self) -> dict[str, tuple[str, ...]]:
        if self.state.table.ingress:
            return {}
        found = self._endpoint_names()
        # What is added later wins: tasks give way to aliases of services, and those to the services' own names.
        services = sorted(self.state.services.values(), key=lambda service: service.name)
        for service in services:
            found.update((name.lower(), self._service(service.service_id)) for name in service.aliases)
        for service in services:
            found[service.name.lower()] = self._service(service.service_id)
        for service in services:
            for name in (service.name, *service.aliases):
                found[f"tasks.{name}".lower()] = self._tasks(service.service_id)
        found.pop("", None)
        return found

    def _endpoint_names(self) -> dict[str, tuple[str, ...]]:
        """Several tasks may share a name (an alias, a host name): all their addresses answer to it."""
        found: dict[str, dict[str, None]] = {}
        for endpoint in self.state.endpoints.values():
            for name in (*endpoint.aliases, endpoint.hostname, endpoint.name):
                found.setdefault(name.lower(), {}).update(dict.fromkeys(endpoint.addresses))
        return {name: tuple(addresses) for name, addresses in found.items()}

    def _service(self, service_id: str) -> tuple[str, ...]:
        service = self.state.services[service_id]
        return service.vips if service.endpoint_mode == "vip" and service.vips else self._tasks(service_id)

    def _tasks(self, service_id: str) -> tuple[str, ...]:
        ready = self.state.ready_by_service.get(service_id, [])
        return tuple(address for record in ready for address in record.addresses)

    @cached_property
    def names_by_address(self) -> dict[str, str]:
        if self.state.table.ingress:
            return {}
        found = {a: record.name for record in self.state.endpoints.values() for a in record.addresses}
        found.update((vip, service.name) for service in self.state.services.values() for vip in service.vips)
        return found

    @cached_property
    def subnets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(subnet, strict=False) for subnet in self.state.table.subnets)

    def lookup(self, name: str) -> tuple[str, ...] | None:
        """Addresses of `name` or `name.<this network>`; None when there is no such name here."""
        found = self.addresses.get(name)
        suffix = "." + self.state.table.name.lower()
        if found is None and name.endswith(suffix):
            found = self.addresses.get(name[: -len(suffix)])
        return found


@dataclass(frozen=True, slots=True)
class View:
    """One sandbox's view: its networks in order, and the names it has of its own."""

    networks: Sequence[Names]
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def decide(query: dns.Query, view: View, turn: int) -> Decision:
    """`turn` rotates the answers, so that clients which take the first one spread."""
    if query.kind_class not in (dns.CLASS_IN, dns.CLASS_ANY):
        return FORWARD
    address = dns.reverse_address(query.name)
    if address is not None:
        return _reverse(query, view, address)
    for names in view.networks:
        found = names.lookup(query.name)
        if found is not None:
            return _answer(query, found, turn)
    own = view.own.get(query.name)
    if own is not None:
        return _answer(query, own, turn)
    return NO_SUCH_NAME if query.name and "." not in query.name else FORWARD


def _answer(query: dns.Query, addresses: tuple[str, ...], turn: int) -> Answer:
    records = [dns.address_record(address) for address in addresses]
    wanted = [record for record in records if query.kind in (record[0], dns.ANY)]
    start = turn % len(wanted) if wanted else 0
    return Answer(tuple(wanted[start:] + wanted[:start]))


def _reverse(query: dns.Query, view: View, address: str) -> Decision:
    for names in view.networks:
        name = names.names_by_address.get(address)
        if name is not None:
            record = dns.name_record(f"{name}.{names.state.table.name}")
            return Answer((record,) if record and query.kind in (dns.PTR, dns.ANY) else ())
    parsed = ip_address(address)
    ours = any(parsed in subnet for names in view.networks for subnet in names.subnets)
    return NO_SUCH_NAME if ours else FORWARD
