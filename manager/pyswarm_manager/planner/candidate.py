"""A candidate: a task on its way through the stages, before it becomes a task object (or an updated one).

Orchestrate makes it, allocate fills in networks and ports, schedule the node. Whatever is missing at the end is said in
its message, and it waits in the state it reached.
"""

from __future__ import annotations

from pyswarm_common.model import NetworkAttachment, PortConfig, Service, Task, TaskSpec, TaskState, TaskStatus

PLACED_MESSAGE = "scheduler assigned task to node"


class Candidate:
    __slots__ = (
        "allocated",
        "desired_state",
        "job_iteration",
        "message",
        "networks",
        "node_id",
        "placed",
        "ports",
        "restart_times",
        "service",
        "slot",
        "spec",
        "start_at",
        "task",
    )

    def __init__(
        self,
        service: Service,
        spec: TaskSpec,
        *,
        slot: int = 0,
        node_id: str = "",
        desired_state: TaskState = TaskState.RUNNING,
        start_at: float = 0.0,
        restart_times: tuple[float, ...] = (),
        job_iteration: int = 0,
        task: Task | None = None,
    ) -> None:
        self.service = service
        self.spec = spec
        self.slot = slot
        self.node_id = node_id
        """Fixed from the start for global services."""
        self.desired_state = desired_state
        self.start_at = start_at
        self.restart_times = restart_times
        self.job_iteration = job_iteration
        self.task = task
        """The waiting task it is, or None for one that is to be made."""
        self.allocated = task is not None and task.status.state >= TaskState.PENDING
        self.networks: tuple[NetworkAttachment, ...] = task.networks if task is not None else ()
        self.ports: tuple[PortConfig, ...] = service.endpoint.ports
        self.placed = False
        self.message = ""

    @classmethod
    def waiting(cls, task: Task, service: Service) -> Candidate:
        return cls(service, task.spec, slot=task.slot, node_id=task.node_id, task=task)

    def status(self, now: float) -> TaskStatus:
        if self.placed:
            return TaskStatus(timestamp=now, state=TaskState.ASSIGNED, message=PLACED_MESSAGE)
        state = TaskState.PENDING if self.allocated else TaskState.NEW
        return TaskStatus(timestamp=now, state=state, message=self.message)
