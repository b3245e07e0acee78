"""Start conditions: a service's first tasks wait until the services that it depends on are far enough.

Decides whether what a service waits for is there, from the other services' tasks alone. First tasks are those after the
service's creation or its start: that is remembered in the service (`awaits_dependencies`, set by apply), so that what
is restarted or moved later never waits, whatever became of the others meanwhile. Waiting tasks are PENDING, and say
what they wait for.

As in docker compose a condition must hold for every replica that is wanted, and a service that is wanted with no
replicas is not waited for. A service that does not exist, or is stopped, is.

Who acts next: the scheduler passes over what is held; the ledger knows who waits for whom, so that the planner looks at
waiting services when something happens to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from pyswarm_common.model import (
    CronRunState,
    DependencyCondition,
    NodeState,
    Service,
    ServiceDependency,
    ServiceMode,
    Task,
    TaskState,
)
from pyswarm_common.model.sizes import wanted_replicas
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.store.tables import Kind, Tables

_RUNNING = TaskState.RUNNING
_WORDS = {
    DependencyCondition.STARTED: "to be started",
    DependencyCondition.HEALTHY: "to be healthy",
    DependencyCondition.COMPLETED: "to be completed",
}


def dependents(tables: Tables, ledger: Ledger, changed: Iterable[str]) -> Iterator[str]:
    """Ids of the services that wait for one of those in which something happened."""
    if not ledger.awaited:
        return
    for service_id in dict.fromkeys(changed):
        service = tables.services.get(service_id)
        if service is not None:
            yield from ledger.awaited.get(service.spec.name, ())


def release(draft: Draft, service: Service) -> Service:
    """The service, which waits no longer if everything that it waits for is there."""
    if not service.awaits_dependencies or missing(draft, service):
        return service
    released = replace(service, awaits_dependencies=False)
    draft.put_service(released)
    return released


def hold(draft: Draft) -> None:
    """Keep back the tasks of services that still wait, and have them say for what."""
    reasons: dict[str, str] = {}
    for candidate in draft.candidates:
        service = candidate.service
        if not service.awaits_dependencies:
            continue
        if service.id not in reasons:
            reasons[service.id] = f"waits for {' and '.join(missing(draft, service))}"
        candidate.message = reasons[service.id]
        candidate.is_held = True


def missing(draft: Draft, service: Service) -> list[str]:
    """What the service still waits for, in words; nothing if it is all there."""
    return [sentence for item in service.spec.depends_on if (sentence := _missing(draft, item))]


def _missing(draft: Draft, dependency: ServiceDependency) -> str:
    service_id = draft.tables.ids_by_name.get((Kind.SERVICE, dependency.service), "")
    service = draft.service(service_id)
    what = f"service {dependency.service} {_WORDS[dependency.condition]}"
    if service is None:
        return f"{what} (there is no such service)"
    if service.spec.stopped:
        return f"{what} (it is stopped)"
    return "" if _is_met(draft, service, dependency.condition) else what


def _is_met(draft: Draft, service: Service, condition: DependencyCondition) -> bool:
    if service.spec.mode.is_job:
        return _is_met_by_job(draft, service, condition)
    slots = draft.tables.slots.get(service.id, {})
    if service.spec.mode is ServiceMode.GLOBAL:
        on_ready = [tasks for key, tasks in slots.items() if _is_ready(draft, str(key))]
        return bool(on_ready) and all(_holds(tasks, condition) for tasks in on_ready)
    return sum(_holds(tasks, condition) for tasks in slots.values()) >= wanted_replicas(service)


def _is_met_by_job(draft: Draft, service: Service, condition: DependencyCondition) -> bool:
    """A job has completed when its present run has; of a cron service the last run that has ended counts."""
    if condition is not DependencyCondition.COMPLETED:
        return any(_has_started(task) for task in draft.tables.service_tasks(service.id))
    if service.spec.mode is ServiceMode.CRON:
        runs = service.cron_status.runs if service.cron_status is not None else ()
        ended = [run for run in runs if run.state in (CronRunState.COMPLETE, CronRunState.FAILED)]
        return bool(ended) and ended[-1].state is CronRunState.COMPLETE
    status = service.job_status
    return status is not None and bool(status.completed_at) and not status.failed


def _holds(tasks: tuple[Task, ...], condition: DependencyCondition) -> bool:
    """Whether one of the slot's tasks is as far as that."""
    match condition:
        case DependencyCondition.STARTED:
            return any(_has_started(task) for task in tasks)
        case DependencyCondition.HEALTHY:
            # With a health check RUNNING means that it passed.
            return any(task.desired_state <= _RUNNING and task.status.state is _RUNNING for task in tasks)
        case DependencyCondition.COMPLETED:
            return any(task.status.state is TaskState.COMPLETE for task in tasks)


def _has_started(task: Task) -> bool:
    """Its container runs (healthy or not yet), or has run to its end."""
    state, container = task.status.state, task.status.container
    if state is TaskState.STARTING:
        return task.desired_state <= _RUNNING and container is not None and bool(container.pid)
    return state is TaskState.COMPLETE or (state is _RUNNING and task.desired_state <= _RUNNING)


def _is_ready(draft: Draft, node_id: str) -> bool:
    node = draft.tables.nodes.get(node_id)
    return node is not None and node.status.state is NodeState.READY
