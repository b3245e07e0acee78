"""What must hold of who makes way for whom, and of who has which device.

A task makes way only for a service of higher priority. What has moved for balance stops only when its successor runs.
No two containers of a host have the same named resource, and each that asked for some has as many: looked at when a
container starts, by what really runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from pyswarm_common.model import Service, Task, TaskState
from pyswarm_manager.store.changes import Event
from pyswarm_runtime.types import ContainerState
from pyswarm_simulator.checks.stores import ContentChecks
from pyswarm_simulator.checks.violation import Violation
from pyswarm_worker.tasks import task_id_of

_PREEMPTED = re.compile(r"preempted by service (\S+) ")
_MOVED = "moved for balance"


class SchedulingChecks:
    """What every index did; `content` is brought up before."""

    def __init__(self, content: ContentChecks) -> None:
        self._content = content
        self._movers: dict[str, str] = {}
        """Tasks that are being moved for balance: their successors."""

    def changed(self, index: int, events: tuple[Event, ...]) -> None:
        """What an index did."""
        for old, new in events:
            if not isinstance(new, Task):
                continue
            if not isinstance(old, Task):
                self._made(index, new)
            elif old.desired_state <= TaskState.RUNNING < new.desired_state:
                self._given_up(index, new)

    def _made(self, index: int, task: Task) -> None:
        if task.cause == _MOVED:
            self._movers[task.replaces] = task.id
        found = _PREEMPTED.match(task.cause)
        if found is None:
            return
        services = {service.spec.name: service for service in self._content.services.values()}
        taker, giver = services.get(found[1]), self._content.services.get(task.service_id)
        if taker is not None and giver is not None and taker.spec.priority <= giver.spec.priority:
            priorities = f"{taker.spec.priority} and {giver.spec.priority}"
            raise Violation(f"preemption: {task.name} made way for {found[1]}, of priorities {priorities}, at {index}")

    def _given_up(self, index: int, task: Task) -> None:
        successor = self._content.tasks.get(self._movers.get(task.id, ""))
        service = self._content.services.get(task.service_id)
        if successor is None or service is None or successor.desired_state > TaskState.RUNNING:
            return
        if task.status.state is not TaskState.RUNNING or task.id in self._content.excused:
            return
        if successor.status.state < TaskState.RUNNING and self._might_stay(service, task):
            raise Violation(f"balance: {task.name} stops before {successor.id}, which it moves to, runs, at {index}")

    def _might_stay(self, service: Service, task: Task) -> bool:
        """But for the move."""
        node = self._content.nodes.get(task.node_id)
        is_current = task.spec == service.spec.task and not task.restart_requested
        is_wanted = not service.spec.stopped and task.slot <= (service.spec.replicas or 0)
        return is_current and is_wanted and node is not None and not node.spec.taints


def check_resources(
    content: ContentChecks, host: str, started: ContainerState, running: Iterable[ContainerState]
) -> None:
    """A container began to run on that host; `running` is what runs there, this one included."""
    task = content.tasks.get(task_id_of(started))
    if task is None:
        return
    asked = Counter({item.kind: item.count for item in task.spec.resources.reservations.generic})
    given = Counter(item.kind for item in task.generic_resources for _ in range(1 if item.value else item.count))
    if asked != given:
        raise Violation(f"resources: {task.name} on {host} has {given} where it asked for {asked}")
    own = {(item.kind, item.value) for item in task.generic_resources if item.value}
    for state in running:
        other = content.tasks.get(task_id_of(state))
        if other is None or other.id == task.id or not own:
            continue
        both = own & {(item.kind, item.value) for item in other.generic_resources}
        if both:
            raise Violation(f"resources: {sorted(both)} of {host} are had by {task.name} and by {other.name}")
