"""What is the matter with a service, in sentences: what waits, what fails, what is on its way. Bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pyswarm_common.model import Service, ServiceMode, Task, TaskState, UpdateState
from pyswarm_common.model.sizes import wanted_replicas
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.schedule.backoff import WITHIN_S, failing_nodes
from pyswarm_manager.store.tables import Tables

MAX_FINDINGS = 20
_FAILED = (TaskState.FAILED, TaskState.REJECTED)


def findings(view: Tables, service: Service, now: float) -> list[str]:
    tasks = list(view.service_tasks(service.id))
    found: list[str] = []
    for part in (_size(service, tasks), _waiting(tasks), _failing(view, service, tasks, now), _under_way(service)):
        found.extend(part)
    return found[:MAX_FINDINGS]


def first_waiting(view: Tables, service: Service) -> Task | None:
    return next((task for task in view.service_tasks(service.id) if _waits(task)), None)


def _waits(task: Task) -> bool:
    return task.desired_state <= TaskState.RUNNING and task.status.state < TaskState.ASSIGNED


def _size(service: Service, tasks: list[Task]) -> Iterator[str]:
    wanted = [task for task in tasks if task.desired_state <= TaskState.RUNNING]
    running = sum(task.status.state is TaskState.RUNNING for task in wanted)
    if service.spec.stopped:
        yield "the service is stopped"
    elif service.awaits_dependencies:
        yield "the service waits for the services that it depends on"
    elif service.spec.mode.is_job:
        yield from _run(service, running)
    elif service.spec.mode is ServiceMode.REPLICATED:
        yield f"{running} of {wanted_replicas(service)} tasks run"
    else:
        yield f"{running} of {len(wanted)} tasks run"


def _run(service: Service, running: int) -> Iterator[str]:
    """How far the latest run of a job or a cron service is."""
    status = service.job_status
    if status is None or not status.iteration:
        yield "it has not run yet"
        return
    given_up = f", {status.failed} given up" if status.failed else ""
    yield f"run {status.iteration}: {running} running, {status.succeeded} completed{given_up}"


def _waiting(tasks: list[Task]) -> Iterator[str]:
    reasons = Counter(task.status.message or "not looked at yet" for task in tasks if _waits(task))
    for reason, count in reasons.most_common(5):
        yield f"{_tasks(count)} {'waits' if count == 1 else 'wait'}: {reason}"


def _failing(view: Tables, service: Service, tasks: list[Task], now: float) -> Iterator[str]:
    recent = [task for task in tasks if task.status.state in _FAILED and abs(now - task.ended_at) < WITHIN_S]
    by_name: dict[str, list[Task]] = {}
    for task in recent:
        by_name.setdefault(task.name, []).append(task)
    for name, failed in sorted(by_name.items(), key=lambda item: -len(item[1]))[:5]:
        last = max(failed, key=lambda task: task.ended_at)
        said = last.status.err or last.status.message or last.status.state.name.lower()
        yield f"{name} failed {_times(len(failed))} in the last minutes, the last time on {_host(view, last)}: {said}"
    for node_id, count in failing_nodes(_failures(tasks), service, now).items():
        node = view.nodes.get(node_id)
        name = node.description.hostname if node is not None else node_id
        yield f"node {name} is chosen last: the service failed there {_times(count)} in the last minutes"


def _failures(tasks: list[Task]) -> Ledger:
    """Only what the service's own tasks say."""
    ledger = Ledger()
    for task in tasks:
        if task.status.state in _FAILED:
            ledger.observe_task(None, task)
    return ledger


def _under_way(service: Service) -> Iterator[str]:
    update = service.update_status
    if update is not None and update.state not in (UpdateState.NONE, UpdateState.COMPLETED):
        yield update.message
    rebalance = service.rebalance_status
    if rebalance is not None and not rebalance.completed_at:
        yield f"rebalance: {rebalance.message or 'asked for'}"


def _host(view: Tables, task: Task) -> str:
    node = view.nodes.get(task.node_id)
    return node.description.hostname if node is not None else task.node_id or "no node"


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
