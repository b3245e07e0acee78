"""Plain containers' places on networks: what is kept of them, and what follows. Pure.

A record is what the container's user asked of this node; the managers' tasks say which addresses there are. The two
meet in `sandbox_of`. Interfaces keep their names for as long as the container has its place: taking it off one
network must not rename, and so break, the others.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import msgspec
from msgspec.structs import replace

from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Task
from pyswarm_overlay import types as overlay

EGRESS_INTERFACE = "gw0"
MAX_PLACES = 32
_SHORT_ID = 12


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A network as the container's user asks for it: id, name or id prefix."""

    network: str
    aliases: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One network of a container."""

    network_id: str
    network_name: str
    interface: str
    aliases: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    """Addresses that the user asked for."""
    addresses: tuple[str, ...] = ()
    """Those it has, or had last; with prefix length."""
    task_id: str = ""
    """Of the managers' task for it; empty while they are to be asked."""


class PlainRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A container that has a namespace of ours."""

    container_id: str
    name: str
    dns: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()

    def place(self, network: str) -> Place | None:
        """By the network's id, name, or unique beginning of its id."""
        found = [one for one in self.places if network in (one.network_id, one.network_name)]
        found = found or [one for one in self.places if network and one.network_id.startswith(network)]
        return found[0] if len(found) == 1 else None

    def without(self, network_id: str) -> PlainRecord:
        return replace(self, places=tuple(place for place in self.places if place.network_id != network_id))

    def having(self, place: Place) -> PlainRecord:
        """With the place, in the stead of what it had on that network."""
        if any(known.network_id == place.network_id for known in self.places):
            known = (place if one.network_id == place.network_id else one for one in self.places)
            return replace(self, places=tuple(known))
        return replace(self, places=(*self.places, place))


def free_interface(record: PlainRecord) -> str:
    """The first name that no place of the container has."""
    taken = {place.interface for place in record.places}
    return next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)


def find(records: Iterable[PlainRecord], reference: str) -> PlainRecord:
    """By id, name, or unique beginning of an id; docker's words when there is none."""
    known = list(records)
    found = [one for one in known if reference in (one.container_id, one.name)]
    found = found or [one for one in known if reference and one.container_id.startswith(reference)]
    if len(found) > 1:
        raise InvalidArgument(f"Multiple IDs found with provided prefix: {reference[:64]}")
    if not found:
        raise NotFound(f"No such container: {reference[:64]}")
    return found[0]


def sandbox_of(record: PlainRecord, internal: Container[str]) -> overlay.Sandbox:
    """The container's namespace as wanted: on the networks where it has addresses."""
    attachments = tuple(
        overlay.Attachment(
            network_id=place.network_id,
            endpoint_id=place.task_id,
            addresses=place.addresses,
            aliases=(record.name, *place.aliases),
            interface=place.interface,
        )
        for place in record.places
        if place.addresses
    )
    return overlay.Sandbox(
        sandbox_id=record.container_id,
        hostname=record.container_id[:_SHORT_ID],
        attachments=attachments,
        egress=not attachments or any(one.network_id not in internal for one in attachments),
        egress_interface=EGRESS_INTERFACE,
        dns=record.dns,
    )


def with_addresses(record: PlainRecord, tasks: Mapping[str, Task]) -> PlainRecord:
    """The record with the addresses that its assigned tasks have."""
    places = []
    for place in record.places:
        task = tasks.get(place.task_id)
        found = () if task is None else _addresses(task, place.network_id)
        places.append(replace(place, addresses=found) if found else place)
    return replace(record, places=tuple(places))


def _addresses(task: Task, network_id: str) -> tuple[str, ...]:
    return next((one.addresses for one in task.networks if one.network_id == network_id), ())


def hints(place: Place) -> tuple[str, ...]:
    """The addresses to ask for again: a container keeps its own where nobody else was given them."""
    return place.asked or tuple(address.partition("/")[0] for address in place.addresses)
