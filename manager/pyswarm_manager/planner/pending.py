"""Who waits for what, as part of the ledger: services for others, tasks to be restarted. Derived from the objects.

Small, so that a plan asks in one look whether anything of the kind is going on at all.
"""

from __future__ import annotations

from pyswarm_common.model import Service, Task, TaskState

Names = dict[str, dict[str, None]]


def observe_awaited(awaited: Names, old: Service | None, new: Service | None) -> None:
    """Keep the ids of waiting services by the name of each service that they wait for."""
    if old is not None and old.awaits_dependencies:
        for dependency in old.spec.depends_on:
            _remove(awaited, dependency.service, old.id)
    if new is not None and new.awaits_dependencies:
        for dependency in new.spec.depends_on:
            awaited.setdefault(dependency.service, {})[new.id] = None


def observe_restart(restarting: Names, old: Task | None, new: Task | None) -> None:
    """Keep the ids of tasks that users asked to restart, by service, until they are told to stop."""
    if old is not None and _is_restarting(old):
        _remove(restarting, old.service_id, old.id)
    if new is not None and _is_restarting(new):
        restarting.setdefault(new.service_id, {})[new.id] = None


def _is_restarting(task: Task) -> bool:
    return bool(task.restart_requested) and task.desired_state <= TaskState.RUNNING


def _remove(names: Names, name: str, item: str) -> None:
    items = names.get(name, {})
    items.pop(item, None)
    if not items:
        names.pop(name, None)
