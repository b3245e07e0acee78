"""Bugs in networks, and in who is on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyswarm_common.model import Service
from pyswarm_manager.dispatcher.core import tables
from pyswarm_manager.planner import attachments
from pyswarm_manager.store import apply
from pyswarm_simulator.planting import planted, replaced
from pyswarm_simulator.profile import NETWORKS


@planted("a network goes while somebody is on it", NETWORKS, 10)
def _removed_while_used() -> Iterator[None]:
    """Nobody asks who is."""
    with replaced(apply, "refuse_network_if_used", lambda network, services, tasks: None):
        yield


@planted("who may connect to a service is told once", NETWORKS, 40)
def _untold_policy() -> Iterator[None]:
    """As if a change of it made no other record."""

    def same(old: Service, new: Service) -> bool:
        return old.endpoint == new.endpoint and old.spec.task.networks == new.spec.task.networks

    with replaced(tables, "_same_service", same):
        yield


@planted("places of plain containers are never given back", NETWORKS, 10)
def _kept_places() -> Iterator[None]:
    """Their tasks stay when they have ended."""
    original = attachments._is_over

    def is_over(draft: Any, task: Any) -> bool:
        return original(draft, task) and not task.status.state.is_terminal

    with replaced(attachments, "_is_over", is_over):
        yield
