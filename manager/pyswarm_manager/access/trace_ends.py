"""What the ends of a trace are: which container or node somebody means, and why a service has nowhere to go. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.errors import FailedPrecondition, InvalidArgument, NotFound
from pyswarm_common.model import Node, Task, TaskState
from pyswarm_manager.access import entering
from pyswarm_manager.api.log_stream import LogSource
from pyswarm_manager.store.lookup import find_node
from pyswarm_manager.store.tables import Kind, Tables

PUBLISHED = "ingress"
"""As the goal of a way: a port that the node publishes."""
_MAX_SHOWN = 5


def source_of(view: Tables, reference: str) -> LogSource:
    """A task, a service's best one, or a plain container by its id, name or id prefix."""
    try:
        return entering.source_of(view, reference)
    except (NotFound, FailedPrecondition):
        task = _plain_task(view, reference)
        if task is None:
            raise
        return LogSource(task, view.nodes.get(task.node_id))


def sandbox_of(task: Task) -> str:
    """By what the task's node calls its namespace: a plain container on several networks has one."""
    return task.id if task.spec.attachment is None else task.spec.attachment.container_id


def _plain_task(view: Tables, reference: str) -> Task | None:
    """A place of the container that is meant. Its other places lead to the same namespace."""
    plain = {task.id: task for task in view.tasks.values() if task.spec.attachment is not None}
    places = [task for task in plain.values() if task.status.state >= TaskState.ASSIGNED and _is_wanted(task)]
    found = [task for task in places if reference in (task.id, sandbox_of(task), task.name)]
    found = found or [task for task in places if reference and sandbox_of(task).startswith(reference)]
    if len({(task.node_id, sandbox_of(task)) for task in found}) > 1:
        raise InvalidArgument(f"container {reference} is ambiguous ({len(found)} matches found): give more of the id")
    return found[0] if found else None


def _is_wanted(task: Task) -> bool:
    return task.desired_state <= TaskState.RUNNING and not task.status.state.is_terminal


def door_of(view: Tables, source: str, target: str) -> Node | None:
    """The node whose published port is meant; None: the way begins in a container.

    "ingress" is a name like any other for containers; a service may have it.
    """
    if target != PUBLISHED:
        return None
    try:
        return find_node(view, source)
    except NotFound:
        if (Kind.SERVICE, PUBLISHED) in view.ids_by_name:
            return None
        raise NotFound(f"node {source} not found: the way to a published port begins at a node") from None


def absent(view: Tables, service: str) -> Iterator[str]:
    """Why tasks of a service that are meant to run get no traffic, as far as managers know: one line for each."""
    service_id = view.ids_by_name.get((Kind.SERVICE, service), service)
    wanted = [task for task in view.service_tasks(service_id) if task.desired_state is TaskState.RUNNING]
    for task in sorted(wanted, key=lambda task: task.name)[:_MAX_SHOWN]:
        if task.status.state is not TaskState.RUNNING:
            said = task.status.err or task.status.message
            yield f"{task.name} is {task.status.state.name.lower()}" + (f" ({said})" if said else "")
            continue
        reason = LogSource(task, view.nodes.get(task.node_id)).unreachable() if task.node_id else ""
        if reason:
            yield f"{task.name} runs no more for all that is known: {reason}"
