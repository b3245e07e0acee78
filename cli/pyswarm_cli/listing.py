"""Lists from the manager, page by page, and names for ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pyswarm.v1 import control_pb2
from pyswarm_cli.connection import Connection, call

_PAGE = 1000


def options(filters: dict[str, list[str]] | None = None) -> control_pb2.ListOptions:
    """What the manager filters by: id, name and label."""
    wanted = filters or {}
    return control_pb2.ListOptions(
        page_size=_PAGE, ids=wanted.get("id", []), names=wanted.get("name", []), labels=wanted.get("label", [])
    )


def _pages(method: Any, request: Any) -> Iterator[Any]:
    while True:
        response = call(method, request)
        yield response
        if not response.next_page_token:
            return
        request.options.page_token = response.next_page_token


def node_resources(connection: Connection) -> dict[str, Any]:
    """What is reserved and free on each node, by its id."""
    request = control_pb2.ListNodesRequest(options=options(), resources=True)
    pages = _pages(connection.control.ListNodes, request)
    return {node_id: found for page in pages for node_id, found in page.resources.items()}


def all_nodes(connection: Connection, filters: dict[str, list[str]] | None = None) -> list[Any]:
    """Every node that passes the filters."""
    request = control_pb2.ListNodesRequest(options=options(filters))
    return [node for page in _pages(connection.control.ListNodes, request) for node in page.nodes]


def all_networks(connection: Connection, filters: dict[str, list[str]] | None = None) -> list[Any]:
    """Every network that passes the filters."""
    request = control_pb2.ListNetworksRequest(options=options(filters))
    return [network for page in _pages(connection.control.ListNetworks, request) for network in page.networks]


def all_services(connection: Connection, filters: dict[str, list[str]] | None = None) -> list[tuple[Any, Any]]:
    """Every service that passes the filters, with its counts of tasks."""
    request = control_pb2.ListServicesRequest(options=options(filters), status=True)
    return [
        (service, page.statuses[service.id])
        for page in _pages(connection.control.ListServices, request)
        for service in page.services
    ]


def all_tasks(
    connection: Connection,
    service_ids: Sequence[str] = (),
    node_ids: Sequence[str] = (),
    filters: dict[str, list[str]] | None = None,
) -> list[Any]:
    """Every task of these services or nodes that passes the filters."""
    request = control_pb2.ListTasksRequest(options=options(filters), service_ids=service_ids, node_ids=node_ids)
    return [task for page in _pages(connection.control.ListTasks, request) for task in page.tasks]


def node_names(connection: Connection) -> dict[str, str]:
    """Host names by node id."""
    return {node.id: node.description.hostname or node.id for node in all_nodes(connection)}


def network_names(connection: Connection) -> dict[str, str]:
    """Network names by id."""
    return {network.id: network.spec.name for network in all_networks(connection)}
