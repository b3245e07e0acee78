"""No task runs twice, and no slot beyond what its update order allows: looked at when a container starts.

A container that runs on a host whose node was lost is nobody's fault: the cluster had to go on without knowing. So a
second one in a slot is a violation only if the first one's task was never given up.
"""

from __future__ import annotations

from pyswarm_common.model import Task, TaskState
from pyswarm_runtime.types import ContainerState
from pyswarm_simulator.checks.stores import ContentChecks
from pyswarm_simulator.checks.violation import Violation
from pyswarm_worker.tasks import task_id_of


def slot_of(task: Task) -> tuple[str, int, int]:
    """Runs of a job have slots of their own, and may go side by side."""
    return task.service_id, task.job_iteration, task.slot


def check_start(
    content: ContentChecks, host: str, started: ContainerState, running: dict[str, list[ContainerState]]
) -> None:
    """A container began to run on that host; `running` is what runs on every host, this one included."""
    task = content.tasks.get(task_id_of(started))
    if task is None or task.id in content.excused or task.service_id in content.ever_start_first:
        return
    for other_host, states in running.items():
        for state in states:
            other = content.tasks.get(task_id_of(state))
            if other is not None and state.id != started.id:
                _check_pair(content, task, host, other, other_host)


def _check_pair(content: ContentChecks, task: Task, host: str, other: Task, other_host: str) -> None:
    if other.id == task.id:
        raise Violation(f"task {task.id} runs twice: on {host} and on {other_host}")
    is_same_slot = slot_of(other) == slot_of(task) and task.slot > 0
    if not is_same_slot or other.id in content.excused:
        return
    if other.status.state > TaskState.RUNNING:
        return
    if max(task.desired_state, other.desired_state) >= TaskState.REMOVE:
        return  # its slot was given up when the service had fewer: an agent that was cut off may hear of it late
    raise Violation(
        f"slot {task.service_name}.{task.slot} runs twice: {task.id} on {host} and {other.id} on {other_host}"
    )
