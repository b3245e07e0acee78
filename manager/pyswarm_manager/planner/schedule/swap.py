"""A successor beside its predecessor on a node that has room for one of them: prepared now, started after that.

With order stop-first a successor uses nothing before it starts, so it may be bound to its predecessor's node although
both are not going to fit there; its image is fetched while the old one serves, and an image that cannot be had stops
nothing. Until the old one has ended both are counted, so nobody else is given what neither has.

So with host ports, which agents publish when a task starts. Who acts next: `slots` stops the predecessor once the
successor is READY, and lets it start when that has ended.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_common.model import Task, TaskState
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.schedule.board import fits, may_host
from pyswarm_manager.planner.schedule.demand import Demand
from pyswarm_manager.planner.schedule.group import Group, demand_of, host_ports_of
from pyswarm_manager.planner.seat import Seat, host_ports


def swap(draft: Draft, successor: Task, predecessors: Iterable[Task]) -> bool:
    """Whether the waiting successor may take the place of a predecessor; then this plan puts it there."""
    if successor.desired_state >= TaskState.RUNNING:
        return False
    demand = demand_of(draft, successor.spec, host_ports(successor))
    for task in predecessors:
        seat = draft.ledger.seats.get(task.node_id)
        if seat is not None and may_host(seat, demand) and _fits_in_place_of(seat, demand, task):
            draft.swaps[successor.id] = task
            return True
    return False


def place_swapped(draft: Draft, candidate: Candidate, predecessor: Task) -> None:
    """Bind the candidate to its predecessor's node, unless something else has taken room there since."""
    seat = draft.ledger.seats.get(predecessor.node_id)
    group = Group(draft, candidate.service, candidate.spec, host_ports_of(candidate.ports))
    group.begin(draft)
    if seat is None or not _fits_in_place_of(seat, group.demand, predecessor):
        return
    seat.usage.add(predecessor, -1)
    if group.may_use(seat):
        group.put(candidate, seat)
    seat.usage.add(predecessor, 1)


def _fits_in_place_of(seat: Seat, demand: Demand, task: Task) -> bool:
    if not TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
        return False
    seat.usage.add(task, -1)
    found = fits(seat, demand)
    seat.usage.add(task, 1)
    return found
