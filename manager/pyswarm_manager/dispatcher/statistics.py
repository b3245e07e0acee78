"""Which agents' statistics are wanted, and where they go.

Agents report only of services that somebody looks at (those that are autoscaled), so that a cluster without any costs
nothing. What arrives is bounded and handed on; nothing of it is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import Service
from pyswarm_manager.autoscale.autoscaler import PERIOD_S
from pyswarm_manager.autoscale.rule import Reading
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Tables

USAGES_LIMIT = 4096
"""Tasks in one message of an agent."""
SERVICES_LIMIT = 10_000
"""Services that agents are asked about."""

UsageSink = Callable[[str, Iterable[tuple[str, Reading]]], None]
"""Told of a node's tasks: (node id, readings by task id)."""


def ignore(node_id: str, readings: Iterable[tuple[str, Reading]]) -> None:
    """For managers without anybody who would look at readings."""


class StatisticsDesk:
    """Of one term."""

    def __init__(self, view: Tables, sink: UsageSink) -> None:
        self._sink = sink
        self._services = {service.id: None for service in view.services.values() if _is_wanted(service)}

    def apply(self, event: Event) -> bool:
        """Take note of a change of a service; returns whether the agents must be told."""
        new = event.new
        known = event.object.id in self._services
        if isinstance(new, Service) and _is_wanted(new):
            self._services[new.id] = None
        else:
            self._services.pop(event.object.id, None)
        return known is not (event.object.id in self._services)

    def wanted(self) -> pb.StatisticsWanted | None:
        """What to tell a new session; None if nothing is wanted."""
        return self.message() if self._services else None

    def message(self) -> pb.StatisticsWanted:
        """What to tell the agents now."""
        services = list(self._services)[:SERVICES_LIMIT]
        return pb.StatisticsWanted(service_ids=services, period_s=PERIOD_S)

    def accept(self, node_id: str, statistics: pb.TaskStatistics) -> None:
        """Hand on what an agent reports. Raises InvalidArgument when it is too much."""
        if len(statistics.tasks) > USAGES_LIMIT:
            raise InvalidArgument(f"statistics name at most {USAGES_LIMIT} tasks")
        self._sink(
            node_id, [(usage.task_id, Reading(usage.nano_cpus, usage.memory_bytes)) for usage in statistics.tasks]
        )


def _is_wanted(service: Service) -> bool:
    return service.spec.autoscale is not None and not service.spec.stopped
