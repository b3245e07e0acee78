"""What the orchestrator knows of one service while it looks at it, with the questions it asks again and again."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from pyswarm_common.model import (
    Availability,
    Node,
    NodeState,
    PortConfig,
    PublishMode,
    Service,
    ServiceMode,
    Task,
    TaskState,
    UpdateConfig,
    UpdateOrder,
)
from pyswarm_manager.planner.allocate.allocator import needs_ingress
from pyswarm_manager.planner.allocate.attaching import has_its_addresses
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.orchestrate.drain import Drain
from pyswarm_manager.planner.orchestrate.restart import longest_delay
from pyswarm_manager.planner.orchestrate.visibility import looks_the_same
from pyswarm_manager.planner.schedule.constraints import parse_constraints, satisfies
from pyswarm_manager.planner.schedule.taints import evicts, repels
from pyswarm_manager.planner.seat import takes_tasks
from pyswarm_manager.store.static_addresses import is_static
from pyswarm_manager.store.tables import SlotKey

_RUNNING = TaskState.RUNNING
DEFAULT_UPDATE = UpdateConfig(parallelism=1)


class Loss(Enum):
    """Why a task cannot stay where it is."""

    NONE = "none"
    GONE = "its node was removed"
    DOWN = "its node is down"
    DRAINED = "its node is drained, and waits until it has moved"
    OVERDUE = "its node is drained, and the deadline is over"
    UNFIT = "its node no longer fits the constraints"


class Work:
    """One service during one plan."""

    def __init__(self, draft: Draft, service: Service) -> None:
        self.draft = draft
        self.service = service
        self.spec = service.spec
        self.now = draft.now
        self.is_global = service.spec.mode in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB)
        self.config = config_of(service)
        self.starts_first = self.config.order is UpdateOrder.START_FIRST
        self.drain = Drain(self)
        self._constraints = parse_constraints(service.spec.task.placement.constraints)
        self._tolerations = service.spec.task.placement.tolerations
        self._losses: dict[str, Loss] = {}
        self._sound_nodes: dict[str, None] = {}
        self._task_spec = service.spec.task
        self._clean_specs: dict[int, bool] = {id(service.spec.task): True}
        self._ports = service.endpoint.ports
        self._host_ports = _host_ports(service.endpoint.ports)
        self.has_host_ports = bool(self._host_ports)
        self._needs_ingress = needs_ingress(draft, service)
        self._is_static = is_static(service.spec.task.networks)

    def node(self, task: Task) -> Node | None:
        return self.draft.tables.nodes.get(task.node_id)

    def loss(self, task: Task) -> Loss:
        """Whether a wanted, running (or starting) task must be replaced elsewhere."""
        if not task.node_id or (task.status.state < TaskState.ASSIGNED and not self.is_global):
            return Loss.NONE
        loss = self._losses.get(task.node_id)
        if loss is None:
            loss = self._losses[task.node_id] = self._find_loss(self.node(task))
        return loss

    def is_settled(self, tasks: tuple[Task, ...]) -> bool:
        """The usual case, told quickly: one task that is wanted, runs or will, is by the spec, and may stay."""
        if len(tasks) != 1:
            return False
        task = tasks[0]
        if task.desired_state is not _RUNNING or task.status.state > _RUNNING:
            return False
        if task.restart_requested or self.is_stale(task):
            return False
        if task.node_id not in self._sound_nodes:
            if self.loss(task) is not Loss.NONE:
                return False
            self._sound_nodes[task.node_id] = None
        if task.spec is self._task_spec and task.ports is self._ports and not self._needs_ingress:
            return True
        return self.is_clean(task)

    def is_stale(self, task: Task) -> bool:
        """Whether the task waits for a node or addresses by another spec than the present one, in whatever respect: its
        constraints and reservations are what it waits for."""
        if task.status.state >= TaskState.ASSIGNED:
            return False
        spec = task.spec
        return not (spec is self._task_spec or spec == self._task_spec) or not self.is_clean(task)

    def is_ahead(self, at: float, longest_s: float) -> bool:
        """Whether to wait until `at`. Nothing waits longer than `longest_s`: what is further off was written by a
        leader whose clock was wrong, and counts as past."""
        return self.now < at <= self.now + longest_s

    def must_wait(self, task: Task) -> bool:
        """Whether a successor's delay is not over."""
        return self.is_ahead(task.start_at, longest_delay(self.spec.task.restart))

    def hosts(self, node: Node) -> bool:
        """Whether the node may keep a task of the service."""
        return (
            node.spec.availability is not Availability.DRAIN
            and satisfies(node, self._constraints)
            and not (node.spec.taints and evicts(node, self._tolerations))
        )

    def accepts(self, node: Node) -> bool:
        """Whether the node takes a new task of the (global) service."""
        return takes_tasks(node) and not (node.spec.taints and repels(node, self._tolerations))

    def is_clean(self, task: Task) -> bool:
        """Whether the task is what the service's spec would make now, and nobody asked for another one in its place.
        What no task can see does not count."""
        return not task.restart_requested and self.is_by_the_spec(task)

    def is_by_the_spec(self, task: Task) -> bool:
        """The same, whatever was asked for."""
        spec = task.spec
        clean = self._clean_specs.get(id(spec))
        if clean is None:
            clean = self._clean_specs[id(spec)] = looks_the_same(spec, self.spec.task)
        if not clean or (self._is_static and not has_its_addresses(task, self._task_spec.networks)):
            return False
        if task.ports is self._ports and not self._needs_ingress:
            return True
        return _host_ports(task.ports) == self._host_ports and self._has_ingress(task)

    def create(
        self,
        key: SlotKey,
        desired_state: TaskState = TaskState.RUNNING,
        start_at: float = 0.0,
        restart_times: tuple[float, ...] = (),
        failures_in_row: int = 0,
        job_iteration: int = 0,
    ) -> Candidate:
        """One more task for the slot, by the service's present spec."""
        candidate = Candidate(
            self.service,
            self.spec.task,
            slot=key if isinstance(key, int) else 0,
            node_id=key if isinstance(key, str) else "",
            desired_state=desired_state,
            start_at=start_at,
            restart_times=restart_times,
            failures_in_row=failures_in_row,
            job_iteration=job_iteration,
        )
        self.draft.candidates.append(candidate)
        return candidate

    def _has_ingress(self, task: Task) -> bool:
        if not self._needs_ingress or task.status.state < TaskState.PENDING:
            return True
        return any(attachment.network_id == self.draft.ledger.ingress_id for attachment in task.networks)

    def _find_loss(self, node: Node | None) -> Loss:
        if node is None:
            return Loss.GONE
        if self.is_global:
            return Loss.NONE  # whether the node hosts the service at all is decided per node
        if node.status.state is NodeState.DOWN:
            return Loss.DOWN
        if node.spec.availability is Availability.DRAIN:
            return Loss.OVERDUE if self.drain.is_overdue(node) else Loss.DRAINED
        return Loss.NONE if self.hosts(node) else Loss.UNFIT


def config_of(service: Service) -> UpdateConfig:
    """How its tasks are replaced now: as in an update, or as in going back."""
    status = service.update_status
    if status is not None and status.state.is_rollback:
        return service.spec.rollback or DEFAULT_UPDATE
    return service.spec.update or DEFAULT_UPDATE


def _host_ports(ports: Sequence[PortConfig]) -> tuple[PortConfig, ...]:
    return tuple(port for port in ports if port.publish_mode is PublishMode.HOST)
