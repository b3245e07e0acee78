"""What must hold of autoscaled services after every commit, whoever leads.

Each decision starts from the number that the service has: a leader's death loses none, and none is taken twice. The
number stays within the bounds, and goes down only when it has not gone up for the down window.
"""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_common.model import AutoscaleSpec, AutoscaleStatus, Service, Task, TaskState
from pyswarm_common.model.sizes import kept_replicas
from pyswarm_manager.store.changes import Event
from pyswarm_simulator.checks.violation import Violation

_COMMIT_S = 3.0
"""Between deciding and committing, at most; and clocks run 1% fast or slow."""


class AutoscaleChecks:
    """What every index did to autoscaled services."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: the world's time."""
        self._now = now
        self._grew_at: dict[str, float] = {}
        self._services: dict[str, Service] = {}
        self._most: dict[str, int] = {}
        """The highest maximum that a service ever had."""

    def changed(self, index: int, events: tuple[Event, ...]) -> None:
        """What an index did."""
        for old, new in events:
            if isinstance(new, Service) and new.spec.autoscale is not None:
                self._most[new.id] = max(self._most.get(new.id, 0), new.spec.autoscale.max_replicas)
                if isinstance(old, Service) and old.spec.autoscale is not None:
                    self._service(index, old, new, new.spec.autoscale)
            elif old is None and isinstance(new, Task) and new.desired_state <= TaskState.RUNNING:
                self._task(index, new)

    def _task(self, index: int, task: Task) -> None:
        most = self._most.get(task.service_id)
        if most is not None and task.slot > most:
            raise Violation(f"autoscaling: {task.name} was made where {most} tasks are the most, at {index}")

    def _service(self, index: int, old: Service, new: Service, spec: AutoscaleSpec) -> None:
        before, after = old.autoscale_status, new.autoscale_status
        if after == before:
            return
        name = new.spec.name
        if after is None:
            raise Violation(f"autoscaling: the number of {name} was forgotten at {index}")
        if not spec.min_replicas <= after.replicas <= spec.max_replicas:
            raise Violation(f"autoscaling: {name} is to have {after.replicas} tasks, against {spec}, at {index}")
        if after.decisions == (before or AutoscaleStatus()).decisions:
            if after.replicas != kept_replicas(old):
                raise Violation(f"autoscaling: {name} has {after.replicas} tasks without a decision at {index}")
            return
        decision = after.decisions[-1]
        if decision.from_replicas != kept_replicas(old) or decision.to_replicas != after.replicas:
            raise Violation(
                f"autoscaling: {name} has {kept_replicas(old)} tasks where {decision} was decided, at {index}"
            )
        self._direction(index, new, spec, after.replicas - decision.from_replicas)

    def _direction(self, index: int, service: Service, spec: AutoscaleSpec, difference: int) -> None:
        now, window_s = self._now(), spec.scale_down_window_s or 0.0
        if difference > 0:
            self._grew_at[service.id] = now
            return
        since_s = now - self._grew_at.get(service.id, -1e9)
        if since_s < window_s * 0.98 - _COMMIT_S:
            raise Violation(
                f"autoscaling: {service.spec.name} shrank {since_s:.1f} s after it grew, its window is {window_s:g} s"
                f", at {index}"
            )
