"""Who names or holds what of which network: nobody gets what is gone, and no network goes while it is used. Pure.

Apply asks once everything of a change set is in, so of a service that is made while its network is removed one is
refused, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyswarm_common.errors import FailedPrecondition, NotFound
from pyswarm_common.model import Network, Service, Task
from pyswarm_manager.store.tables import NODE_NETWORKS, Kind, ingress_ports

Get = Callable[[Kind, str], Any]
"""An object as it is after the changes; None if there is none."""


def check_networks(service: Service, old: Service | None, get: Get) -> None:
    """Refuse a service that begins to name a network that is not there."""
    if old is not None and old.spec.task.networks == service.spec.task.networks:
        return
    for attachment in service.spec.task.networks:
        if attachment.target not in NODE_NETWORKS and get(Kind.NETWORK, attachment.target) is None:
            raise NotFound(f"network {attachment.target} not found")


def check_attached(task: Task, get: Get) -> None:
    """Refuse to give a task addresses of a network that was removed meanwhile."""
    for attachment in task.networks:
        if attachment.addresses and get(Kind.NETWORK, attachment.network_id) is None:
            raise NotFound(f"network {attachment.network_id} not found")


def refuse_if_used(network: Network, services: Iterable[Service], tasks: Iterable[Task]) -> None:
    """Refuse to remove what a service is on, or what a task or a plain container still has an address of."""
    name = network.spec.name
    for service in services:
        if any(attachment.target == network.id for attachment in service.spec.task.networks):
            raise FailedPrecondition(f"network {name} is in use by service {service.spec.name}")
        if network.spec.ingress and ingress_ports(service):
            raise FailedPrecondition(
                f"ingress network cannot be removed because service {service.spec.name} depends on it"
            )
    for task in tasks:
        if not task.status.state.is_terminal and any(item.network_id == network.id for item in task.networks):
            user = "task" if task.service_id else "container"
            raise FailedPrecondition(f"network {name} is in use by {user} {task.name}")
