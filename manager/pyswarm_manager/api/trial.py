"""A store to try changes on: the API's own code runs against it as against the real one, and nothing is proposed.

So a plan is refused exactly where the change itself would be, by the same checks and in the same words, and what would
be proposed is known change by change.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.v1 import plans_pb2 as pb
from pyswarm_common.errors import FailedPrecondition, InvalidArgument
from pyswarm_common.model import NodeRole, Service
from pyswarm_manager.api import nodes, services
from pyswarm_manager.api.scheduling import begin_rebalance
from pyswarm_manager.ports import Clock
from pyswarm_manager.store.apply import Refusal, apply
from pyswarm_manager.store.changes import Change, ChangeSet, Create, Update
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import Writer


class Trial:
    """A StorePort over a copy of the tables."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables, self._clock = tables, clock
        self.changes: list[Change] = []
        """What would have been proposed."""

    @property
    def view(self) -> Tables:
        return self._tables

    async def propose(self, changes: Iterable[Change]) -> int:
        wanted = tuple(changes)
        result = apply(self._tables, self._tables.index + 1, ChangeSet(wanted, self._clock()))
        if isinstance(result, Refusal):
            raise result.error
        self.changes += wanted
        return self._tables.index

    def service_ids(self) -> list[str]:
        """Of the services that are created or changed."""
        objects = (change.object for change in self.changes if isinstance(change, Create | Update))
        return list(dict.fromkeys(item.id for item in objects if isinstance(item, Service)))


async def try_requests(writer: Writer, requests: Iterable[pb.PlannedRequest]) -> list[str]:
    """Make the changes one after the other; returns the ids of the services that they are about."""
    targets: dict[str, None] = {}
    for request in requests:
        match request.WhichOneof("request"):
            case "create_service":
                targets[(await services.create_service(writer, request.create_service)).id] = None
            case "update_service":
                targets[(await services.update_service(writer, request.update_service)).id] = None
            case "remove_service":
                targets[await services.remove_service(writer, request.remove_service)] = None
            case "update_node":
                await _update_node(writer, request)
            case "rebalance":
                names = request.rebalance.services
                targets.update((service.id, None) for service in await begin_rebalance(writer, names))
            case _:
                raise InvalidArgument("a planned change is empty, or of a kind that this manager does not know")
    return list(targets)


async def _update_node(writer: Writer, request: pb.PlannedRequest) -> None:
    """Roles are about managers: what follows from them is no plan of tasks."""
    node = writer.store.view.nodes.get(request.update_node.node_id)
    if node is not None and NodeRole(request.update_node.spec.role) is not node.spec.role:
        raise FailedPrecondition("a change of a node's role cannot be planned: make it without --plan")
    await nodes.update_node(writer, request.update_node, may_change_role=False)
