"""A service's history as its users see it, and the way back to a spec in it.

Going back is a change like any other: it makes a revision of its own, and the planner rolls to it under the service's
rollback settings.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition, NotFound
from pyswarm_common.model import Service, ServiceRevision, ServiceSpec, UpdateState, UpdateStatus
from pyswarm_manager.store.revisions import revision_id, revisions_of
from pyswarm_manager.store.tables import Tables


def list_revisions(view: Tables, service: Service) -> list[ServiceRevision]:
    """Those that are kept, oldest first."""
    return list(revisions_of(service, view.service_revisions.get))[::-1]


def rolled_back(service: Service, now: float) -> Service:
    """The service with the spec before its present one, as docker's rollback."""
    if service.previous_spec is None:
        raise FailedPrecondition(f"service {service.spec.name} does not have a previous spec")
    return _going_back(service, service.previous_spec, "manually requested rollback", now)


def rolled_back_to(view: Tables, service: Service, number: int, now: float) -> Service:
    """The service with the spec of that revision. NotFound if that is not kept (any more)."""
    name = service.spec.name
    revision = view.service_revisions.get(revision_id(service.id, number))
    if revision is None:
        kept = [item.number for item in list_revisions(view, service)]
        which = f"{kept[0]} to {kept[-1]} are kept" if kept else "none is kept"
        raise NotFound(f"service {name} has no revision {number}: {which}")
    if revision.spec == service.spec:
        raise FailedPrecondition(f"service {name} is as in revision {number} already")
    return _going_back(service, revision.spec, f"manually requested rollback to revision {number}", now)


def resumed(service: Service, now: float) -> Service:
    """The service whose paused update (or rollback) goes on, because it was updated to what it is already."""
    status = service.update_status
    if status is None or not status.state.is_paused:
        return service
    is_rollback = status.state is UpdateState.ROLLBACK_PAUSED
    state = UpdateState.ROLLBACK_STARTED if is_rollback else UpdateState.UPDATING
    what = "rollback" if is_rollback else "update"
    return replace(service, update_status=UpdateStatus(state=state, started_at=now, message=f"{what} resumed"))


def _going_back(service: Service, spec: ServiceSpec, message: str, now: float) -> Service:
    started = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at=now, message=message)
    return replace(service, spec=spec, update_status=started)
