"""Preemption: a waiting task of a higher priority takes the place of tasks of the lowest, as few as can be.

A task is bound to a node only when there is room, so preempting takes two steps. First its victims are told to stop
and the task is nominated for the node: it keeps waiting, and what it asks for counts there for the rest of the plan, so
that nothing of lower priority slips into the room that becomes free piece by piece. When the victims have ended it is
placed like any other. Nothing of this is remembered: the next plan nominates the same node, since stopping tasks are
counted as gone and no further victim is needed there.

Never stops a task of equal or higher priority, and never more at a time than `MAX_VICTIMS`. A task preempts only once
it has waited for a plan: until then it may turn out that its own predecessor makes room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from pyswarm_common.model import ServiceMode, Task, TaskState, UpdateOrder
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.orchestrate.work import config_of
from pyswarm_manager.planner.schedule.board import fits, may_host
from pyswarm_manager.planner.schedule.demand import Demand, reserve
from pyswarm_manager.planner.schedule.group import Group
from pyswarm_manager.planner.seat import Seat
from pyswarm_manager.store.tables import slot_key

MAX_VICTIMS = 256
"""Tasks told to stop by one plan."""
MAX_NODES = 2_000
"""Nodes that are looked at for one group."""
_NONE = -(1 << 31)
MAX_NOMINATED = 1_000
"""Tasks that one plan keeps room for."""


class Victim(NamedTuple):
    priority: int
    task: Task


class _Offer(NamedTuple):
    """What it would cost to make room on a node; the lowest first."""

    highest_priority: int
    victims: int
    seat: int


class Preemption:
    """What one plan preempts."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._outlooks: dict[int, _Outlook] = {}
        self._nominated: list[tuple[Seat, Demand]] = []
        self.victims: list[tuple[Task, Group]] = []

    def nominate(self, group: Group, candidates: Iterable[Candidate], seats: Iterable[Seat]) -> None:
        """Find nodes where the candidates would have room without tasks of lower priority."""
        waiting = [candidate for candidate in candidates if candidate.task is not None and not candidate.is_optional]
        if not waiting or not self._has_lower(group):
            return
        by_index = {seat.index: seat for seat in _some(seats)}
        heap = [offer for seat in by_index.values() if (offer := self._offer(group, seat)) is not None]
        heapify(heap)
        for candidate in waiting:
            seat = self._next_seat(group, heap, by_index)
            if seat is None:
                return
            self._take(group, candidate, seat)
            offer = self._offer(group, seat)
            if offer is not None:
                heappush(heap, offer)

    def undo(self) -> None:
        """Count out again what is only kept free."""
        for seat, demand in self._nominated:
            reserve(seat.usage, demand, -1)

    def _has_lower(self, group: Group) -> bool:
        priorities = self._draft.ledger.priorities
        return group.priority > min(0, min(priorities.values(), default=0))

    def _next_seat(self, group: Group, heap: list[_Offer], by_index: dict[int, Seat]) -> Seat | None:
        while heap:
            offer = heappop(heap)
            seat = by_index[offer.seat]
            current = self._offer(group, seat)
            if current == offer:
                full = len(self.victims) + offer.victims > MAX_VICTIMS or len(self._nominated) >= MAX_NOMINATED
                return None if full else seat
            if current is not None:
                heappush(heap, current)
        return None

    def _offer(self, group: Group, seat: Seat) -> _Offer | None:
        if not may_host(seat, group.demand) or group.refusal(seat):
            return None
        victims = self._outlook(seat).victims(group)
        if victims is None:
            return None
        return _Offer(max((victim.priority for victim in victims), default=_NONE), len(victims), seat.index)

    def _take(self, group: Group, candidate: Candidate, seat: Seat) -> None:
        outlook = self._outlook(seat)
        victims = outlook.victims(group) or []
        for victim in victims:
            outlook.evict(victim)
            self.victims.append((victim.task, group))
        outlook.nominate(group.demand)
        reserve(seat.usage, group.demand, 1)
        self._nominated.append((seat, group.demand))
        name = seat.node.description.hostname or seat.node.id
        candidate.message = f"waiting for tasks of lower priority to stop on node {name}"

    def _outlook(self, seat: Seat) -> _Outlook:
        outlook = self._outlooks.get(seat.index)
        if outlook is None:
            outlook = self._outlooks[seat.index] = _Outlook(self._draft, seat)
        return outlook


def displace(draft: Draft, victim: Task, group: Group) -> Candidate | None:
    """Stop the task for one of the group. Returns its successor, unless its slot has another task or gets one by
    itself."""
    cause = f"preempted by service {group.service.spec.name} (priority {group.priority})"
    draft.desire(victim, TaskState.SHUTDOWN)
    draft.explain(victim.service_id, f"{victim.name}: {cause}")
    service = draft.service(victim.service_id)
    assert service is not None
    if service.spec.mode is not ServiceMode.REPLICATED:
        draft.unfinished.services[service.id] = None
        return None
    others = draft.tables.slots[service.id][slot_key(victim)]
    if any(other is not victim and other.desired_state <= TaskState.RUNNING for other in others):
        return None
    starts_first = config_of(service).order is UpdateOrder.START_FIRST
    successor = Candidate(
        service,
        service.spec.task,
        slot=victim.slot,
        desired_state=TaskState.RUNNING if starts_first else TaskState.READY,  # until the victim has ended
        restart_times=victim.restart_times,
    )
    successor.replaces = victim.id
    successor.cause = cause
    return successor


class _Outlook:
    """A node as it will be when the tasks that are stopping have stopped, with those that could be stopped too."""

    def __init__(self, draft: Draft, seat: Seat) -> None:
        self._later = Seat(seat.index, seat.node, seat.usage.copy())
        self._lower: list[Victim] = []
        for task in draft.tables.tasks_on(seat.node.id):
            if not TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
                continue
            if task.desired_state > TaskState.RUNNING or draft.is_leaving(task):
                self._later.usage.add(task, -1)
                continue
            service = draft.service(task.service_id)
            if service is not None:
                self._lower.append(Victim(service.spec.priority, task))
        self._lower.sort(key=lambda victim: victim.priority)

    def victims(self, group: Group) -> list[Victim] | None:
        """The lowest tasks without which the group's next task has room, and of these few; None if that is not to be
        had. Taking fewer but higher ones would only make those take the place of the lowest in turn."""
        demand, later = group.demand, self._later
        if fits(later, demand):
            return []
        chosen: list[Victim] = []
        for victim in self._lower:
            if victim.priority >= group.priority:
                return None
            chosen.append(victim)
            if self._fits_without(chosen, demand):
                break
        else:
            return None
        for victim in self._lower:
            if victim.priority <= chosen[-1].priority and self._fits_without([victim], demand):
                return [victim]
        return list(self._needed(chosen, demand))

    def _needed(self, chosen: list[Victim], demand: Demand) -> Iterator[Victim]:
        """Spare those without which there is room as well, the highest first."""
        kept = list(chosen)
        for victim in reversed(chosen):
            others = [other for other in kept if other is not victim]
            if self._fits_without(others, demand):
                kept = others
        return iter(kept)

    def _fits_without(self, victims: list[Victim], demand: Demand) -> bool:
        usage = self._later.usage
        for victim in victims:
            usage.add(victim.task, -1)
        try:
            return fits(self._later, demand)
        finally:
            for victim in victims:
                usage.add(victim.task, 1)

    def evict(self, victim: Victim) -> None:
        self._lower.remove(victim)
        self._later.usage.add(victim.task, -1)

    def nominate(self, demand: Demand) -> None:
        reserve(self._later.usage, demand, 1)


def _some(seats: Iterable[Seat]) -> Iterator[Seat]:
    for number, seat in enumerate(seats):
        if number >= MAX_NODES:
            return
        if seat.open:
            yield seat
