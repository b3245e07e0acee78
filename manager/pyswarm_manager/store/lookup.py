"""Finding an object by what a user types: its id, its name, or the unambiguous beginning of its id. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Network, Node, Service, Task
from pyswarm_manager.store.tables import Tables

T = TypeVar("T", Node, Service, Task, Network)


def find_node(tables: Tables, reference: str) -> Node:
    return _find("node", tables.nodes, reference, lambda node: node.description.hostname)


def find_service(tables: Tables, reference: str) -> Service:
    return _find("service", tables.services, reference, lambda service: service.spec.name)


def find_network(tables: Tables, reference: str) -> Network:
    return _find("network", tables.networks, reference, lambda network: network.spec.name)


def find_task(tables: Tables, reference: str) -> Task:
    return _find("task", tables.tasks, reference, lambda task: task.name)


def _find(kind: str, table: Mapping[str, T], reference: str, name: Callable[[T], str]) -> T:
    """In this order: id, name, beginning of an id. NotFound if nothing fits, InvalidArgument if several do."""
    if not reference:
        raise InvalidArgument(f"which {kind}? give its id or name")
    exact = table.get(reference)
    if exact is not None:
        return exact
    found = [item for item in table.values() if name(item) == reference]
    if not found:
        found = [item for item in table.values() if item.id.startswith(reference)]
    if not found:
        raise NotFound(f"{kind} {reference} not found")
    if len(found) > 1:
        raise InvalidArgument(f"{kind} {reference} is ambiguous ({len(found)} matches found): give more of the id")
    return found[0]
