"""Plain containers on networks of the cluster: tasks without a service, bound to the node that runs the container.

Decides their addresses, and when nobody needs them any more: what ended is forgotten at once, what is on a node that is
down stays until that node would give up its other tasks too. Never starts, stops or moves anything: the container is
its user's. Who acts next: the node attaches the container when its task is ASSIGNED.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from pyswarm_common.model import ClusterSpec, Node, NodeState, Service, Task, TaskState, TaskStatus
from pyswarm_manager.planner.allocate.attaching import allocate_task
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.dirty import Dirty
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.store.tables import SlotKey

NO_SERVICE = ""
"""Where the tables keep such tasks; within it by node."""
ATTACHED = "the container has its addresses"


def settle(draft: Draft, dirty: Dirty, keys: Iterable[SlotKey] | None) -> None:
    """Look at the attachments of these nodes (None: of all), and at those that wait if something was freed."""
    slots = draft.tables.slots.get(NO_SERVICE, {})
    tasks = {task.id: task for key in (slots if keys is None else keys) for task in slots.get(key, ())}
    if dirty.room:
        tasks |= {task.id: task for task in draft.tables.unplaced.values() if task.service_id == NO_SERVICE}
    for task in tasks.values():
        if _is_over(draft, task):
            draft.delete(task)
        elif task.status.state < TaskState.ASSIGNED:
            _attach(draft, task)


def _attach(draft: Draft, task: Task) -> None:
    candidate = Candidate(Service(id=NO_SERVICE), task.spec, node_id=task.node_id, task=task)
    allocate_task(draft, candidate)
    if candidate.allocated:
        draft.ledger.release(candidate.networks)  # counted with the task from here on: no scheduler does it
        status = TaskStatus(timestamp=draft.now, state=TaskState.ASSIGNED, message=ATTACHED)
        draft.change(task, replace(task, networks=candidate.networks, status=status))
        return
    draft.finish(candidate)
    if candidate.message:
        draft.explain(task.id, f"{task.name}: {candidate.message}")


def _is_over(draft: Draft, task: Task) -> bool:
    node = draft.tables.nodes.get(task.node_id)
    if node is None or task.status.state.is_terminal or _has_no_network(draft, task):
        return True
    is_down = node.status.state is NodeState.DOWN
    if task.desired_state > TaskState.RUNNING:
        return is_down or task.status.state < TaskState.ASSIGNED
    return is_down and _is_given_up(draft, node)


def _has_no_network(draft: Draft, task: Task) -> bool:
    """Whether it waits for addresses of a network that was removed meanwhile: its node knows nothing of it."""
    is_waiting = task.status.state < TaskState.ASSIGNED
    return is_waiting and any(draft.network(wanted.target) is None for wanted in task.spec.networks)


def _is_given_up(draft: Draft, node: Node) -> bool:
    cluster = draft.tables.cluster
    at = node.status.changed_at + (cluster.spec if cluster is not None else ClusterSpec()).orphan_grace_s
    if at > draft.now:
        draft.wake(NO_SERVICE, node.id, at)
    return at <= draft.now
