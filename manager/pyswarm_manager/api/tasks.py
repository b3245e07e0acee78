"""Writes of single tasks, on the leader: restart one, remove one.

Decides only whether that can be asked of the task; the planner acts next. It makes the successor of a task that is to
be restarted in the order and at the pace of the service's updates, and another task in place of a removed one.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import Service, Task, TaskState
from pyswarm_manager.store.changes import Delete, SetDesired, Update
from pyswarm_manager.store.lookup import find_wanted_task
from pyswarm_manager.store.tables import Kind
from pyswarm_manager.writes import Writer, retried


async def restart_task(writer: Writer, reference: str) -> Task:
    """Ask for another task in its place."""

    async def attempt() -> Task:
        view = writer.store.view
        task = find_wanted_task(view, reference)
        _check_restartable(task, view.services.get(task.service_id))
        await writer.store.propose([Update(replace(task, restart_requested=task.restart_requested + 1))])
        return task

    return await retried(attempt)


async def remove_task(writer: Writer, reference: str, *, force: bool) -> Task:
    """Forget an ended task, or (with force) stop one and forget it then."""

    async def attempt() -> Task:
        task = find_wanted_task(writer.store.view, reference)
        if task.status.state.is_terminal or task.status.state < TaskState.ASSIGNED:
            await writer.store.propose([Delete(Kind.TASK, task.id)])
            return task
        if not force:
            raise FailedPrecondition(
                f"task {task.id} has not ended: stop and remove it with --force, "
                f"or replace it in order with `pyswarm task restart`"
            )
        await writer.store.propose([SetDesired(task.id, TaskState.REMOVE)])
        return task

    return await retried(attempt)


def _check_restartable(task: Task, service: Service | None) -> None:
    if service is None:
        raise FailedPrecondition(f"the service of task {task.id} was removed: nothing would take the task's place")
    if service.spec.mode.is_job:
        raise FailedPrecondition(
            f"task {task.id} belongs to a job, whose tasks run once: "
            f"run the job again with `pyswarm service update --force {service.spec.name}`"
        )
    if task.desired_state > TaskState.RUNNING:
        raise FailedPrecondition(f"task {task.id} is not meant to run any more: restart {task.name} instead")
