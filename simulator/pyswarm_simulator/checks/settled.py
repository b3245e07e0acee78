"""What services with finer wishes must come to once everything is healed (those of `orchestration_workload`).

Each slot has a task that runs by the present spec where it may, or one that waits because no node could take it, even
if all that its service outranks made way. What runs meanwhile in a waiting task's slot stays: unless a taint drives it
out or the deadline of a drain is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pyswarm_common.model import Availability, Node, NodeState, Service, TaintEffect, Task, TaskState, UpdateOrder
from pyswarm_common.model.sizes import kept_replicas, wanted_replicas
from pyswarm_manager.planner.orchestrate.visibility import looks_the_same
from pyswarm_manager.planner.orchestrate.work import config_of
from pyswarm_manager.planner.schedule.backoff import MAX_FAILURES
from pyswarm_manager.store.tables import Tables
from pyswarm_simulator.world import EPOCH

TOLERANCE = 0.1
AIM_BYTES = 50 * 1024**2
_DEADLINE_SLACK_S = 5.0


class Settled:
    """One look at a healed cluster."""

    def __init__(self, view: Tables, now: float, demands: Mapping[str, int]) -> None:
        """`now`: the world's time. `demands`: how much memory is used of autoscaled services in all."""
        self._view, self._wall, self._demands = view, EPOCH + now, demands

    def missing(self, service: Service) -> Iterator[str]:
        """What is not so yet."""
        name, view = service.spec.name, self._view
        live = [task for task in view.service_tasks(service.id) if not task.status.state.is_terminal]
        stopping = [task for task in live if task.desired_state > TaskState.RUNNING]
        if stopping:
            yield f"{len(stopping)} tasks of service {name} are still stopping"
        slots: dict[int, list[Task]] = {}
        for task in live:
            slots.setdefault(task.slot, []).append(task)
        if len(slots) != wanted_replicas(service):
            yield f"service {name} has {len(slots)} of {wanted_replicas(service)} slots"
        for tasks in slots.values():
            yield from self._slot(service, tasks)
        if service.spec.autoscale is not None:
            yield from self._scale(service)
        if service.spec.rebalance and not stopping:
            yield from self._spread(service, live)

    # -- slots ---------------------------------------------------------------------------------------------------------

    def _slot(self, service: Service, tasks: list[Task]) -> Iterator[str]:
        running = [task for task in tasks if task.status.state is TaskState.RUNNING]
        waiting = [task for task in tasks if not task.node_id]
        name = tasks[0].name
        most = (
            len(running) if waiting and _starts_first(service) else 1
        )  # of several updates, until the last one's runs
        if len(running) + len(waiting) != len(tasks) or len(running) > most or len(waiting) > 1:
            states = " ".join(f"{task.status.state.name}/{task.desired_state.name}" for task in tasks)
            yield f"task {name} is not settled: {states}"
            return
        for task in running:
            yield from self._running(service, task, is_stuck=bool(waiting))
        for task in waiting:
            for node in self._view.nodes.values():
                if self._has_room(service, node, running):
                    yield f"task {name} waits ({task.status.message or task.status.err}), and {_host(node)} has room"

    def _running(self, service: Service, task: Task, *, is_stuck: bool) -> Iterator[str]:
        node = self._view.nodes.get(task.node_id)
        if node is None:
            yield f"task {task.name} runs on a node that is none"
            return
        if node.spec.availability is not Availability.DRAIN:  # whose order holds, whatever taints it has besides
            if _is_driven_out(service, node) and not (is_stuck and _starts_first(service)):
                yield f"task {task.name} runs on {_host(node)}, which is tainted against it"
        else:
            if self._is_overdue(node):
                yield f"task {task.name} runs on {_host(node)}, whose drain is overdue"
            if any(self._has_room(service, other, []) for other in self._view.nodes.values()):
                yield f"task {task.name} runs on {_host(node)}, which is drained, and there is room elsewhere"
        # Of an update whose successors wait for room, the others wait as well: no more are open than it allows.
        waits = any(not t.node_id for t in self._view.service_tasks(service.id))
        is_current = is_stuck or waits or looks_the_same(task.spec, service.spec.task)
        if not is_current and any(self._has_room(service, other, [task]) for other in self._view.nodes.values()):
            yield f"task {task.name} is of an older spec"

    def _is_overdue(self, node: Node) -> bool:
        after_s = node.spec.drain_deadline_s
        return bool(after_s) and self._wall > node.drain_started_at + after_s + _DEADLINE_SLACK_S

    # -- room ----------------------------------------------------------------------------------------------------------

    def _has_room(self, service: Service, node: Node, own: list[Task]) -> bool:
        """Whether the node could take a task of the service, without those that it outranks and its predecessor."""
        if not _takes(service, node):
            return False
        gone = [] if _starts_first(service) else own  # which then waits for its successor
        staying = [task for task in self._view.tasks_on(node.id) if self._stays(service, task, gone)]
        asked = service.spec.task.resources.reservations
        held = sum(task.spec.resources.reservations.memory_bytes for task in staying)
        if asked.memory_bytes > node.description.resources.memory_bytes - held:
            return False
        free = Counter(item.kind for item in node.description.resources.generic)
        free.subtract(item.kind for task in staying for item in task.generic_resources)
        return all(free[item.kind] >= item.count for item in asked.generic)

    def _stays(self, service: Service, task: Task, own: list[Task]) -> bool:
        if task.status.state.is_terminal or task in own:
            return False
        other = self._view.services.get(task.service_id)
        return other is None or other.spec.priority >= service.spec.priority

    # -- numbers -------------------------------------------------------------------------------------------------------

    def _scale(self, service: Service) -> Iterator[str]:
        """The number is what the use asks for, as far as the bounds allow."""
        spec, number = service.spec.autoscale, kept_replicas(service)
        assert spec is not None
        demand = self._demands.get(service.id)
        running = [t for t in self._view.service_tasks(service.id) if t.status.state is TaskState.RUNNING]
        if demand is None or not spec.memory_percent or len(running) != number:
            return
        fitting = min(max(-(-demand // AIM_BYTES), spec.min_replicas), spec.max_replicas)
        if number != fitting and abs(demand / (number * AIM_BYTES) - 1.0) > TOLERANCE + 0.01:
            yield f"service {service.spec.name} has {number} tasks where its use asks for {fitting}"

    def _spread(self, service: Service, live: list[Task]) -> Iterator[str]:
        failed = Counter(
            task.node_id
            for task in self._view.service_tasks(service.id)
            if task.status.state in (TaskState.FAILED, TaskState.REJECTED)
        )
        nodes = [node for node in self._view.nodes.values() if _takes(service, node)]
        counts = {node.id: 0 for node in nodes if failed[node.id] < MAX_FAILURES}  # others are chosen last
        for task in live:
            if task.node_id in counts:
                counts[task.node_id] += 1
        if counts and max(counts.values()) - min(counts.values()) > 1:
            yield f"service {service.spec.name} is spread unevenly: {sorted(counts.values())}"


def _starts_first(service: Service) -> bool:
    return config_of(service).order is UpdateOrder.START_FIRST


def _host(node: Node) -> str:
    return node.description.hostname


def _takes(service: Service, node: Node) -> bool:
    is_open = node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE
    return is_open and not (_untolerated(service, node) - {TaintEffect.PREFER_NO_SCHEDULE})


def _is_driven_out(service: Service, node: Node) -> bool:
    return TaintEffect.NO_EXECUTE in _untolerated(service, node)


def _untolerated(service: Service, node: Node) -> set[TaintEffect]:
    """The workload's tolerations name a key and nothing else."""
    keys = {toleration.key for toleration in service.spec.task.placement.tolerations}
    return {taint.effect for taint in node.spec.taints if taint.key not in keys}
