"""Bugs in autoscaling, in following secrets and configs, and in who may be where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyswarm_common.model import Service
from pyswarm_manager.autoscale import autoscaler, windows
from pyswarm_manager.files import upkeep, versions
from pyswarm_manager.planner import seat
from pyswarm_manager.planner.orchestrate import drain, slots
from pyswarm_manager.planner.schedule import preempt
from pyswarm_simulator.planting import planted, replaced
from pyswarm_simulator.profile import ORCHESTRATION, SCALING


@planted("a new leader goes on with the number that the user gave", SCALING, 20)
def _forgotten_number() -> Iterator[None]:
    """As if decisions were kept by the leader alone."""

    def begin(self: Any) -> None:
        original(self)
        self._forgotten = dict.fromkeys(self._services)

    def wanted_replicas(service: Service) -> int:
        spec = service.spec.autoscale
        assert spec is not None
        return min(max(service.spec.replicas or 1, spec.min_replicas), spec.max_replicas)

    def decide(self: Any, service: Service) -> Service | None:
        if self._forgotten.pop(service.id, 0) is None:
            with replaced(autoscaler, "wanted_replicas", wanted_replicas):
                return decide_well(self, service)
        return decide_well(self, service)

    original, decide_well = autoscaler.Autoscaler.begin, autoscaler.Autoscaler._decide
    with replaced(autoscaler.Autoscaler, "begin", begin), replaced(autoscaler.Autoscaler, "_decide", decide):
        yield


@planted("tasks go as soon as they are not needed", SCALING, 40)
def _no_window() -> Iterator[None]:
    """Whatever was needed a moment before."""

    def settle(self: Any, spec: Any, current: int, advised: int, now: float) -> int:
        return advised

    with replaced(windows.Window, "settle", settle):
        yield


@planted("services follow again after they were set back", ORCHESTRATION, 60)
def _follows_again() -> Iterator[None]:
    """Whenever a service does not name the latest version."""
    with replaced(versions, "_made_at", lambda *_: 1 << 62):
        yield


@planted("old versions are kept for ever", ORCHESTRATION, 20)
def _nothing_removed() -> Iterator[None]:
    """Nobody looks whether they are needed."""
    with replaced(upkeep, "unneeded", lambda view: []):
        yield


@planted("tasks make way for others of the same priority", ORCHESTRATION, 60)
def _equal_priority() -> Iterator[None]:
    """As if each task were worth less than it is."""

    def begin(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self._lower = [preempt.Victim(victim.priority - 1, victim.task) for victim in self._lower]

    original = preempt._Outlook.__init__
    with replaced(preempt._Outlook, "__init__", begin):
        yield


@planted("a named resource is given twice", ORCHESTRATION, 20)
def _given_twice() -> Iterator[None]:
    """All of them are always free."""
    with replaced(seat.Seat, "free_names", lambda self, kind: list(self.named.get(kind, ()))):
        yield


@planted("drains wait for ever", ORCHESTRATION, 120)
def _no_deadline() -> Iterator[None]:
    """Whatever the deadline."""
    with replaced(drain, "deadline", lambda node: 0.0):
        yield


@planted("what is driven out is not waited for", ORCHESTRATION, 60)
def _not_waited_for() -> Iterator[None]:
    """Its successor starts at once."""
    original = slots._holds_back

    def holds_back(work: Any, task: Any, is_retired: bool) -> bool:
        return original(work, task, is_retired) and not (is_retired and task.desired_state <= slots._RUNNING)

    with replaced(slots, "_holds_back", holds_back):
        yield
