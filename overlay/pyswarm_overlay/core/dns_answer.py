"""What a name means to one sandbox: an answer, nothing, no such name, or somebody else's business.

Rules, in this order: a name known on one of the sandbox's networks (in the order of its attachments; never the ingress
network) is answered from there and never forwarded, whatever the type of the question. `tasks.<service>` of a service
without ready tasks exists and is empty; a slot or a port that a service of ours does not have does not exist. An
unknown name of one label does not exist. Addresses inside our subnets are never asked of others. All else is forwarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from pyswarm_overlay.types import ServiceRecord

from . import dns_message as dns
from .zone import TASKS, Zone

Record = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """Records to send, perhaps none: the name exists. `more` are records of other names, sent where there is room."""

    records: tuple[Record, ...]
    more: tuple[tuple[bytes, Record], ...] = ()


@dataclass(frozen=True, slots=True)
class NoSuchName:
    """NXDOMAIN."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask the host's resolvers."""


Decision = Answer | NoSuchName | Forward
NO_SUCH_NAME = NoSuchName()
FORWARD = Forward()


@dataclass(frozen=True, slots=True)
class View:
    """One sandbox's view: its networks in order, and the names it has of its own."""

    networks: Sequence[Zone]
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def decide(query: dns.Query, view: View) -> Decision:
    """In the order of the tables: whoever sends it rotates."""
    if query.kind_class not in (dns.CLASS_IN, dns.CLASS_ANY):
        return FORWARD
    address = dns.reverse_address(query.name)
    if address is not None:
        return _reverse(query, view, address)
    found = _find(query.name, view)
    if found is not None:
        records = (dns.address_record(address) for address in found)
        return Answer(tuple(record for record in records if query.kind in (record[0], dns.ANY)))
    if query.name.startswith("_"):
        return _port(query, view)
    if "." not in query.name:
        return NO_SUCH_NAME if query.name else FORWARD
    return NO_SUCH_NAME if any(zone.is_missing_slot(query.name) for zone in view.networks) else FORWARD


def _find(name: str, view: View) -> tuple[str, ...] | None:
    for zone in view.networks:
        found = zone.lookup(name)
        if found is not None:
            return found
    return view.own.get(name)


def _reverse(query: dns.Query, view: View, address: str) -> Decision:
    for zone in view.networks:
        name = zone.name_of(address)
        if name is not None:
            record = dns.name_record(name)
            return Answer((record,) if record and query.kind in (dns.PTR, dns.ANY) else ())
    parsed = ip_address(address)
    ours = any(parsed in subnet for zone in view.networks for subnet in zone.subnets)
    return NO_SUCH_NAME if ours else FORWARD


def _port(query: dns.Query, view: View) -> Decision:
    """`_<port>._<protocol>.<service>`: the port by its name or number."""
    port, _, rest = query.name.partition(".")
    protocol, _, owner = rest.partition(".")
    if protocol not in ("_tcp", "_udp", "_sctp"):
        return FORWARD
    for zone in view.networks:
        for name in (owner, owner.removesuffix(zone.suffix)):
            services = [] if zone.is_silent else zone.services(name.removeprefix(TASKS))
            if services:
                return _places(query, zone, name, zone.ports(services, port[1:], protocol[1:]))
    return FORWARD


def _places(query: dns.Query, zone: Zone, name: str, ports: Iterable[tuple[ServiceRecord, int]]) -> Decision:
    """Behind a virtual address there is one place; else one for each task that serves."""
    places: list[tuple[str, int, Iterable[str]]] = []
    known = list(ports)
    for service, port in known:
        if zone.has_virtual_address(service) and not name.startswith(TASKS):
            places.append((service.name, port, service.vips))
        else:
            places += [(task.name or task.hostname, port, task.addresses) for task in zone.ready_tasks(service)]
    if not known:
        return NO_SUCH_NAME
    records: list[Record] = []
    more: list[tuple[bytes, Record]] = []
    for target, port, addresses in places if query.kind in (dns.SRV, dns.ANY) else ():
        written = dns.encode_name(f"{target}.{zone.name}")
        if written is not None:
            records.append(dns.service_record(port, written))
            more += [(written, dns.address_record(address)) for address in addresses]
    return Answer(tuple(records), tuple(more))
