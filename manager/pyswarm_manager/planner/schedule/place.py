"""Placing groups of tasks: higher priorities first, and within a group fewest tasks of the service, then least load.

Groups to which all nodes are alike but for their load share one heap of nodes, so that thousands of small services do
not each walk over all nodes. Within such a group, nodes without a task of the service come from that heap; once there
are none left, a heap of the group's own orders the others by (tasks of the service, load). Loads only grow while a plan
places tasks, so an entry that is out of date is put back with its new load, and a node that lacks room for a demand
lacks it for the rest of the plan. Groups with preferences, affinities or failures choose by `spread`; groups that fill
nodes one after the other, by `pack`.
"""

from __future__ import annotations

from collections import Counter
from heapq import heapify, heappop, heappush, heapreplace

from pyswarm_manager.planner.allocate.attaching import allocate_task
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.schedule.board import Board, explain, fits, may_host
from pyswarm_manager.planner.schedule.demand import Demand, Fixed
from pyswarm_manager.planner.schedule.group import NO_LIMIT, Group, host_ports_of, packed_load
from pyswarm_manager.planner.schedule.preempt import Preemption, displace
from pyswarm_manager.planner.schedule.spread import SpreadTree
from pyswarm_manager.planner.schedule.swap import place_swapped
from pyswarm_manager.planner.seat import Seat

_SMALL_GROUP = 16
"""Not worth a heap of its own, if no other group has the same demand."""

_PoolKey = tuple[Demand | Fixed, bool, bool]


class Pool:
    """The nodes that may take tasks of some demand (or of all demands that only differ in room), by load."""

    __slots__ = ("heap", "is_shared", "packs")

    def __init__(self, seats: list[Seat], packs: bool, is_shared: bool) -> None:
        self.packs = packs
        self.is_shared = is_shared
        """By several demands: a node that is full for one may have room for the next."""
        self.heap = [(packed_load(seat) if packs else seat.load(), seat.index) for seat in seats]
        heapify(self.heap)


class Placing:
    """One round of placing."""

    def __init__(self, draft: Draft, groups: list[Group], preemption: Preemption | None) -> None:
        self.board = Board(draft.ledger)
        self.waiting: list[tuple[Group, list[Candidate]]] = []
        """What found no node."""
        self._demands = Counter(group.demand for group in groups)
        self._pools: dict[_PoolKey, Pool] = {}
        self._by_index = {seat.index: seat for seat in self.board.seats}
        self._reasons: dict[Demand, str] = {}
        self._preemption = preemption

    def place(self, group: Group) -> None:
        pinned = [candidate for candidate in group.candidates if candidate.node_id]
        for candidate in pinned:
            self._place_pinned(group, candidate)
        free = [candidate for candidate in group.candidates if not candidate.node_id] if pinned else group.candidates
        left = self._place_free(group, [candidate for candidate in free if not self._place_at_home(group, candidate)])
        if left:
            self.waiting.append((group, left))
            if self._preemption is not None:
                first, second = self.board.eligible(group.demand.fixed)
                self._preemption.nominate(group, left, [*first, *second])

    def _place_at_home(self, group: Group, candidate: Candidate) -> bool:
        """Where the task's predecessor ran, if no node is better in anything but its load. Not where the service keeps
        failing: then not all nodes are alike to the group."""
        if not candidate.home or not group.is_plain or group.packs or group.counts.get(candidate.home):
            return False
        seat = self.board.seat(candidate.home)
        if seat is None or seat.node.spec.taints or not (may_host(seat, group.demand) and group.may_use(seat)):
            return False
        group.put(candidate, seat)
        return True

    def explain(self) -> None:
        """Say why the others wait. Counted when everything is placed, so that the same state always gives the same
        sentence."""
        for group, left in self.waiting:
            reason = self._reason(group)
            for candidate in left:
                candidate.message = candidate.message or reason

    def _place_pinned(self, group: Group, candidate: Candidate) -> None:
        """A task that goes to a certain node (a global service's, or a move): it waits until there is room."""
        seat = self.board.seat(candidate.node_id)
        if seat is not None and may_host(seat, group.demand) and group.may_use(seat):
            group.put(candidate, seat)
        else:
            candidate.message = explain([seat] if seat else [], group.demand, group.refusal)
            if seat is not None and self._preemption is not None:
                self._preemption.nominate(group, [candidate], [seat])

    def _place_free(self, group: Group, candidates: list[Candidate]) -> list[Candidate]:
        """Place as many as fit; returns the others."""
        if not candidates:
            return []
        first, second = self.board.eligible(group.demand.fixed)
        if not group.is_plain:
            return self._place_by_rank([*first, *second], group, candidates)
        for tier in (False, True):
            if candidates and (second if tier else first):
                pool = self._pool(group, second if tier else first, tier)
                place = self._place_packed if group.packs else self._place_evenly
                candidates = place(pool, group, candidates)
        return candidates

    def _pool(self, group: Group, seats: list[Seat], tier: bool) -> Pool:
        is_shared = self._demands[group.demand] == 1 and len(group.candidates) <= _SMALL_GROUP
        key = (group.demand.fixed if is_shared else group.demand, tier, group.packs)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(seats, group.packs, is_shared)
        return pool

    def _place_by_rank(self, seats: list[Seat], group: Group, candidates: list[Candidate]) -> list[Candidate]:
        tree = SpreadTree(seats, group)
        for position, candidate in enumerate(candidates):
            seat = tree.take()
            if seat is None:
                return candidates[position:]
            if group.put(candidate, seat):
                tree.refresh()
        return []

    def _place_evenly(self, pool: Pool, group: Group, candidates: list[Candidate]) -> list[Candidate]:
        turn = _Turn(self._by_index, pool, group)
        try:
            for position, candidate in enumerate(candidates):
                seat = turn.next_unused() or turn.next_used()
                if seat is None:
                    return candidates[position:]
                group.put(candidate, seat)
                turn.placed(seat)
            return []
        finally:
            turn.end()

    def _place_packed(self, pool: Pool, group: Group, candidates: list[Candidate]) -> list[Candidate]:
        """Fill a node before the next one is begun."""
        heap, seats = pool.heap, self._by_index
        aside: list[int] = []
        position = 0
        while heap and position < len(candidates):
            load, index = heap[0]
            seat = seats[index]
            current = packed_load(seat)
            if current != load:
                heapreplace(heap, (current, index))
            elif group.is_crowded(seat.node.id):
                aside.append(heappop(heap)[1])
            elif fits(seat, group.demand):
                group.put(candidates[position], seat)
                position += 1
            else:
                heappop(heap)
                if pool.is_shared:
                    aside.append(index)
        for index in aside:
            heappush(heap, (packed_load(seats[index]), index))
        return candidates[position:]

    def _reason(self, group: Group) -> str:
        if group.limit != NO_LIMIT or group.affinities is not None:
            return explain(self.board.seats, group.demand, group.refusal)
        reason = self._reasons.get(group.demand)
        if reason is None:
            reason = self._reasons[group.demand] = explain(self.board.seats, group.demand, None)
        return reason


class _Turn:
    """One group's use of the shared heap."""

    __slots__ = ("_aside", "_demand", "_group", "_is_shared", "_own", "_pool", "_seats")

    def __init__(self, seats: dict[int, Seat], pool: Pool, group: Group) -> None:
        self._seats = seats
        self._pool = pool
        self._group = group
        self._demand = group.demand
        self._is_shared = pool.is_shared
        self._aside: dict[int, None] = {}  # taken from the shared heap, to be put back
        self._own: list[tuple[int, float, int]] = []  # nodes with tasks of the service: (tasks, load, index)

    def next_unused(self) -> Seat | None:
        """The least loaded node without a task of the service."""
        heap, seats, counts = self._pool.heap, self._seats, self._group.counts
        while heap:
            load, index = heap[0]
            seat = seats[index]
            current = seat.load()
            if current != load:
                heapreplace(heap, (current, index))
                continue
            heappop(heap)
            count = counts.get(seat.node.id, 0)
            if count:
                self._aside[index] = None
                self._keep(count, load, index)
            elif fits(seat, self._demand):
                self._aside[index] = None
                return seat
            elif self._is_shared:
                self._aside[index] = None
        return None

    def next_used(self) -> Seat | None:
        """The node with the fewest tasks of the service, and among these the least loaded."""
        own, seats = self._own, self._seats
        while own:
            _, _, index = heappop(own)
            seat = seats[index]
            if fits(seat, self._demand):
                return seat
            if not self._is_shared:
                self._aside.pop(index, None)
        return None

    def placed(self, seat: Seat) -> None:
        self._keep(self._group.counts[seat.node.id], seat.load(), seat.index)

    def end(self) -> None:
        heap = self._pool.heap
        for index in self._aside:
            heappush(heap, (self._seats[index].load(), index))

    def _keep(self, count: int, load: float, index: int) -> None:
        if count < self._group.limit:
            heappush(self._own, (count, load, index))


def schedule(draft: Draft) -> None:
    """Give every allocated candidate a node, or the reason why there is none; stop tasks whose place a higher priority
    needs, and make their successors."""
    preemption = Preemption(draft) if draft.ledger.priorities else None
    _schedule(draft, draft.candidates, preemption)
    if preemption is None:
        return
    successors = [displace(draft, task, group) for task, group in preemption.victims]
    made = [successor for successor in successors if successor is not None]
    draft.candidates += made
    for candidate in made:
        allocate_task(draft, candidate)
    _schedule(draft, made, None)
    preemption.undo()


def _schedule(draft: Draft, candidates: list[Candidate], preemption: Preemption | None) -> None:
    allocated = [candidate for candidate in candidates if candidate.allocated and not candidate.is_held]
    for candidate in allocated if draft.swaps else ():
        if candidate.task is not None and (predecessor := draft.swaps.get(candidate.task.id)) is not None:
            place_swapped(draft, candidate, predecessor)
    allocated = [candidate for candidate in allocated if not candidate.placed]
    if not allocated:
        return
    groups = _groups(draft, allocated)
    placing = Placing(draft, groups, preemption)
    for group in groups:
        group.begin(draft)
        placing.place(group)
    placing.explain()


def _groups(draft: Draft, candidates: list[Candidate]) -> list[Group]:
    """Higher priorities first; those that look where others are, after the others."""
    groups: dict[tuple[str, int], Group] = {}
    for candidate in candidates:
        key = (candidate.service.id, id(candidate.spec))
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(draft, candidate.service, candidate.spec, host_ports_of(candidate.ports))
        group.candidates.append(candidate)
    if len(groups) == 1 or not (draft.ledger.priorities or any(g.spec.placement.affinities for g in groups.values())):
        return list(groups.values())
    return sorted(groups.values(), key=lambda group: (-group.priority, bool(group.spec.placement.affinities)))
