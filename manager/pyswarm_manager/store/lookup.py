"""Finding an object by what a user types: its id, its name, or the unambiguous beginning of its id. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Config, Network, Node, Secret, Service, Task, TaskState
from pyswarm_manager.store.tables import Kind, SlotKey, Tables

T = TypeVar("T", Node, Service, Task, Network, Secret, Config)

_SLOT_DIGITS = 9  # ids of nodes are longer


def find_node(tables: Tables, reference: str) -> Node:
    named = [node for node in tables.nodes.values() if node.description.hostname == reference]
    return _find("node", tables.nodes, reference, named)


def find_service(tables: Tables, reference: str) -> Service:
    return _find("service", tables.services, reference, _named(tables, Kind.SERVICE, tables.services, reference))


def find_network(tables: Tables, reference: str) -> Network:
    return _find("network", tables.networks, reference, _named(tables, Kind.NETWORK, tables.networks, reference))


def find_secret(tables: Tables, reference: str) -> Secret:
    """By its name the latest version; any version by its id."""
    return _find("secret", tables.secrets, reference, _named(tables, Kind.SECRET, tables.secrets, reference))


def find_config(tables: Tables, reference: str) -> Config:
    """By its name the latest version; any version by its id."""
    return _find("config", tables.configs, reference, _named(tables, Kind.CONFIG, tables.configs, reference))


def find_task(tables: Tables, reference: str) -> Task:
    return _find("task", tables.tasks, reference, _tasks_named(tables, reference))


def find_wanted_task(tables: Tables, reference: str) -> Task:
    """As `find_task`, but a name means the task of that slot that is meant to run, whatever ran there before."""
    wanted = [task for task in _tasks_named(tables, reference) if task.desired_state <= TaskState.RUNNING]
    return wanted[-1] if wanted else find_task(tables, reference)


def _named(tables: Tables, kind: Kind, table: Mapping[str, T], name: str) -> list[T]:
    """At most one: the name is unique."""
    object_id = tables.ids_by_name.get((kind, name))
    return [] if object_id is None else [table[object_id]]


def _tasks_named(tables: Tables, name: str) -> list[Task]:
    """All tasks of the slot that the name (`web.1`, `web.<node id>`) speaks of."""
    service_name, _, slot = name.rpartition(".")
    service_id = tables.ids_by_name.get((Kind.SERVICE, service_name), "")
    key: SlotKey = int(slot) if slot.isdecimal() and len(slot) <= _SLOT_DIGITS else slot
    return [task for task in tables.slots.get(service_id, {}).get(key, ()) if task.name == name]


def _find(kind: str, table: Mapping[str, T], reference: str, named: Sequence[T]) -> T:
    """In this order: id, name, beginning of an id. NotFound if nothing fits, InvalidArgument if several do."""
    if not reference:
        raise InvalidArgument(f"which {kind}? give its id or name")
    exact = table.get(reference)
    if exact is not None:
        return exact
    found = list(named)
    if not found:
        found = [item for item in table.values() if item.id.startswith(reference)]
    if not found:
        raise NotFound(f"{kind} {reference} not found")
    if len(found) > 1:
        raise InvalidArgument(f"{kind} {reference} is ambiguous ({len(found)} matches found): give more of the id")
    return found[0]
