"""The leader's loop that keeps the numbers of autoscaled services: readings in, decisions into the services.

The shell around `rule` and `windows`. Readings and windows are this leader's own, and bounded by the tasks that there
are; what was decided is in the service (`autoscale_status`), written with the version that was read, so that the next
leader goes on with the same number. The user's `replicas` is never touched.

Who acts next: the planner, which makes as many tasks as the service says now. Never looks at services without
autoscaling; costs nothing while there are none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from pyswarm_common.errors import Exhausted, NotFound, OutOfSequence, Unavailable
from pyswarm_common.model import AutoscaleDecision, AutoscaleStatus, Service, Task, TaskState
from pyswarm_common.model.sizes import wanted_replicas
from pyswarm_manager.autoscale.rule import Member, Reading, advise
from pyswarm_manager.autoscale.windows import Window
from pyswarm_manager.store.changes import Event, Update
from pyswarm_manager.store.tables import Tables
from pyswarm_manager.writes import FollowedStore

_log = logging.getLogger(__name__)

PERIOD_S = 5.0
"""Between looks. Agents are asked to report as often."""
FRESH_S = 3 * PERIOD_S
"""A reading older than this says nothing any more."""
WARM_UP_S = 2 * PERIOD_S
"""What a task uses in its first seconds is not typical."""
KEPT_DECISIONS = 10


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    reading: Reading


class Autoscaler:
    """Lives as long as the manager; `run` as long as it leads."""

    def __init__(self, store: FollowedStore, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._store, self._clock, self._monotonic = store, clock, monotonic
        self._services: dict[str, Window] = {}
        self._seen: dict[str, _Seen] = {}
        self._some = asyncio.Event()

    def report(self, node_id: str, readings: Iterable[tuple[str, Reading]]) -> None:
        """What a node's agent says of its tasks; of others' tasks it can say nothing."""
        now, tasks = self._monotonic(), self._store.view.tasks
        for task_id, reading in readings:
            task = tasks.get(task_id)
            if task is not None and task.node_id == node_id and task.service_id in self._services:
                self._seen[task_id] = _Seen(now, reading)

    async def run(self) -> None:
        """Until cancelled: one term. It begins with empty windows."""
        self.begin()
        unsubscribe = self._store.subscribe(self.observe)
        try:
            while True:
                await self._some.wait()
                await asyncio.sleep(PERIOD_S)
                await self.look()
        finally:
            unsubscribe()

    def begin(self) -> None:
        """Know nothing but what is in the store."""
        self._services.clear()
        self._seen.clear()
        self._some.clear()
        for service in self._store.view.services.values():
            self._follow(service)

    def observe(self, index: int, events: tuple[Event, ...]) -> None:
        """Called by the store for each commit."""
        del index
        for event in events:
            match event.object:
                case Service() as service if event.new is None:
                    self._services.pop(service.id, None)
                case Service() as service:
                    self._follow(service)
                case Task() as task if event.new is None or task.status.state.is_terminal:
                    self._seen.pop(task.id, None)

    def _follow(self, service: Service) -> None:
        """A service that was autoscaled is followed until what was decided for it is forgotten."""
        is_scaled = service.spec.autoscale is not None and not service.spec.stopped
        if is_scaled or (service.spec.autoscale is None and service.autoscale_status is not None):
            self._services.setdefault(service.id, Window())
        else:
            self._services.pop(service.id, None)
        if self._services:
            self._some.set()
        else:
            self._some.clear()

    async def look(self) -> None:
        """One look at every followed service; `run` does it again and again."""
        for service_id in tuple(self._services):
            service = self._store.view.services.get(service_id)
            changed = None if service is None else self._decide(service)
            if changed is None:
                continue
            try:
                await self._store.propose([Update(changed)])
            except (OutOfSequence, NotFound, Unavailable, Exhausted) as error:
                _log.debug("service %s is looked at again later: %s", service_id, error)

    def _decide(self, service: Service) -> Service | None:
        """The service with another number, or None."""
        spec = service.spec.autoscale
        if spec is None:
            return replace(service, autoscale_status=None)
        window = self._services[service.id]
        current = wanted_replicas(service)
        advice = advise(spec, service.spec.task.resources, current, self._members(service.id))
        replicas = window.settle(spec, current, advice.replicas, self._monotonic())
        status = service.autoscale_status or AutoscaleStatus()
        if replicas == current:
            return None if status.replicas == current else _with_number(service, status, current)
        _log.info("service %s: %d tasks instead of %d (%s)", service.spec.name, replicas, current, advice.reason)
        decision = AutoscaleDecision(
            decided_at=self._clock(), from_replicas=current, to_replicas=replicas, reason=advice.reason
        )
        decisions = (*status.decisions, decision)[-KEPT_DECISIONS:]
        return _with_number(service, replace(status, decisions=decisions), replicas)

    def _members(self, service_id: str) -> list[Member]:
        """One for each slot: a successor that starts (or waits) beside what serves is not one more."""
        slots: dict[int, Member] = {}
        for task in _wanted(self._store.view, service_id):
            member = self._member(task)
            slots[task.slot] = _together(slots[task.slot], member) if task.slot in slots else member
        return list(slots.values())

    def _member(self, task: Task) -> Member:
        age_s = self._clock() - task.running_at
        is_ready = task.status.state is TaskState.RUNNING and not 0.0 <= age_s < WARM_UP_S
        seen = self._seen.get(task.id)
        is_fresh = seen is not None and self._monotonic() - seen.at <= FRESH_S
        return Member(is_ready, seen.reading if seen is not None and is_fresh else None)


def _wanted(view: Tables, service_id: str) -> Iterable[Task]:
    return (task for task in view.service_tasks(service_id) if task.desired_state <= TaskState.RUNNING)


def _together(one: Member, other: Member) -> Member:
    """What a slot uses that has two tasks."""
    if not (one.is_ready and other.is_ready):
        return one if one.is_ready else other
    if one.reading is None or other.reading is None:
        return Member(True, None)
    return Member(True, Reading(*(a + b for a, b in zip(one.reading, other.reading, strict=True))))


def _with_number(service: Service, status: AutoscaleStatus, replicas: int) -> Service:
    return replace(service, autoscale_status=replace(status, replicas=replicas))
