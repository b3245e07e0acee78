"""A candidate: a task on its way through the stages, before it becomes a task object (or an updated one).

Orchestrate makes it, allocate fills in networks and ports, schedule the node. Whatever is missing at the end is said in
its message, and it waits in the state it reached.
"""

from __future__ import annotations

from pyswarm_common.model import (
    GenericResource,
    NetworkAttachment,
    PortConfig,
    Service,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)

PLACED_MESSAGE = "scheduler assigned task to node"


class Candidate:
    __slots__ = (
        "allocated",
        "cause",
        "desired_state",
        "failures_in_row",
        "generic_resources",
        "home",
        "is_held",
        "is_optional",
        "job_iteration",
        "message",
        "networks",
        "node_id",
        "placed",
        "ports",
        "replaces",
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
        failures_in_row: int = 0,
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
        self.failures_in_row = failures_in_row
        self.job_iteration = job_iteration
        self.task = task
        """The waiting task it is, or None for one that is to be made."""
        self.allocated = task is not None and task.status.state >= TaskState.PENDING
        self.networks: tuple[NetworkAttachment, ...] = task.networks if task is not None else ()
        self.ports: tuple[PortConfig, ...] = service.endpoint.ports
        self.generic_resources: tuple[GenericResource, ...] = ()
        """What it is given on its node."""
        self.replaces = task.replaces if task is not None else ""
        """Id of the task that leaves its node when this one runs."""
        self.cause = task.cause if task is not None else ""
        self.is_optional = False
        """Made only if it finds its place at once."""
        self.home = ""
        """Where its predecessor ran, which has its image: preferred to nodes that are as good."""
        self.placed = False
        self.is_held = False
        """It may not be placed yet."""
        self.message = ""

    @classmethod
    def waiting(cls, task: Task, service: Service) -> Candidate:
        return cls(service, task.spec, slot=task.slot, node_id=task.node_id, task=task)

    def status(self, now: float) -> TaskStatus:
        if self.placed:
            return TaskStatus(timestamp=now, state=TaskState.ASSIGNED, message=PLACED_MESSAGE)
        state = TaskState.PENDING if self.allocated else TaskState.NEW
        message = f"{self.cause}: {self.message}" if self.cause and self.message else self.message
        return TaskStatus(timestamp=now, state=state, message=message)
