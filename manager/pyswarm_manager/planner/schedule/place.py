"""Placing groups of tasks: fewest tasks of the service first, then fewest tasks, then least reserved.

Groups with equal demands share one heap of nodes, ordered by load, so that thousands of small services do not each walk
over all nodes. Within a group, nodes without a task of the service come from that heap; once there are none left, a
heap of the group's own orders the others by (tasks of the service, load). Loads only grow while a plan places tasks, so
an entry that is out of date is put back with its new load, and a node that lacks room for a demand lacks it for the
rest of the plan.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace

from pyswarm_common.model import PublishMode, TaskSpec
from pyswarm_manager.planner.candidate import Candidate
from pyswarm_manager.planner.draft import Draft
from pyswarm_manager.planner.schedule.board import Board, Demand, Seat, explain, fits, meets_constraints
from pyswarm_manager.planner.schedule.spread import SpreadTree
from pyswarm_manager.store.tables import Port

_NO_LIMIT = 1 << 62


class Pool:
    """The nodes that may take tasks of one demand, by load."""

    __slots__ = ("demand", "heap", "reason")

    def __init__(self, board: Board, demand: Demand) -> None:
        self.demand = demand
        self.reason = ""
        eligible = (seat for seat in board.seats if seat.open and meets_constraints(seat, demand))
        self.heap = [(seat.load(), seat.index) for seat in eligible]
        heapify(self.heap)


class Group:
    """Waiting tasks of one service and one spec."""

    __slots__ = ("candidates", "counts", "demand", "limit", "service_id", "spec")

    def __init__(self, service_id: str, spec: TaskSpec, ports: tuple[Port, ...], counts: dict[str, int]) -> None:
        self.service_id = service_id
        self.spec = spec
        self.demand = Demand.of(spec, ports)
        self.counts = counts
        """Wanted tasks of the service by node; grows as tasks are placed."""
        self.limit = spec.placement.max_replicas_per_node or _NO_LIMIT
        self.candidates: list[Candidate] = []

    def put(self, candidate: Candidate, seat: Seat) -> None:
        """Bind the task to the node, and count it there as the ledger would."""
        node_id = seat.node.id
        candidate.node_id = node_id
        candidate.placed = True
        usage = seat.usage
        usage.active += 1
        usage.nano_cpus += self.demand.nano_cpus
        usage.memory_bytes += self.demand.memory_bytes
        for port in self.demand.ports:
            usage.ports[port] = usage.ports.get(port, 0) + 1
        self.counts[node_id] = self.counts.get(node_id, 0) + 1

    def is_crowded(self, node_id: str) -> bool:
        return self.counts.get(node_id, 0) >= self.limit


def schedule(draft: Draft) -> None:
    """Give every allocated candidate a node, or the reason why there is none."""
    ready = [candidate for candidate in draft.candidates if candidate.allocated]
    if not ready:
        return
    board = Board(draft)
    pools: dict[Demand, Pool] = {}
    waiting: list[tuple[Group, list[Candidate]]] = []
    for group in _groups(draft, ready):
        pinned = [candidate for candidate in group.candidates if candidate.node_id]
        for candidate in pinned:
            _place_pinned(board, group, candidate)
        free = [candidate for candidate in group.candidates if not candidate.node_id] if pinned else group.candidates
        left = _place(board, pools, group, free)
        if left:
            waiting.append((group, left))
    for group, left in waiting:
        reason = _reason(board, pools, group)
        for candidate in left:
            candidate.message = reason


def _groups(draft: Draft, candidates: list[Candidate]) -> list[Group]:
    groups: dict[tuple[str, int], Group] = {}
    for candidate in candidates:
        key = (candidate.service.id, id(candidate.spec))
        group = groups.get(key)
        if group is None:
            counts = draft.ledger.nodes_of(candidate.service.id)
            group = groups[key] = Group(candidate.service.id, candidate.spec, _host_ports(candidate), counts)
        group.candidates.append(candidate)
    return list(groups.values())


def _host_ports(candidate: Candidate) -> tuple[Port, ...]:
    return tuple(
        (port.protocol, port.published_port)
        for port in candidate.ports
        if port.publish_mode is PublishMode.HOST and port.published_port
    )


def _place_pinned(board: Board, group: Group, candidate: Candidate) -> None:
    """A global service's task: its node is given, and it waits until there is room."""
    seat = board.seat(candidate.node_id)
    if seat is not None and seat.open and meets_constraints(seat, group.demand) and fits(seat, group.demand):
        group.put(candidate, seat)
    else:
        candidate.message = explain([seat] if seat else [], group.demand, None)


def _place(board: Board, pools: dict[Demand, Pool], group: Group, candidates: list[Candidate]) -> list[Candidate]:
    """Place as many as fit; returns the others."""
    if not candidates:
        return []
    if group.spec.placement.preferences:
        return _place_by_preference(board, group, candidates)
    pool = pools.get(group.demand)
    if pool is None:
        pool = pools[group.demand] = Pool(board, group.demand)
    return _place_evenly(board, pool, group, candidates)


def _place_by_preference(board: Board, group: Group, candidates: list[Candidate]) -> list[Candidate]:
    demand = group.demand
    seats = [seat for seat in board.seats if seat.open and meets_constraints(seat, demand)]
    descriptors = tuple(preference.spread_descriptor for preference in group.spec.placement.preferences)
    tree = SpreadTree(
        seats, descriptors, group.counts, lambda seat: fits(seat, demand) and not group.is_crowded(seat.node.id)
    )
    for position, candidate in enumerate(candidates):
        seat = tree.take()
        if seat is None:
            return candidates[position:]
        group.put(candidate, seat)
    return []


def _place_evenly(board: Board, pool: Pool, group: Group, candidates: list[Candidate]) -> list[Candidate]:
    turn = _Turn(board, pool, group)
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


class _Turn:
    """One group's use of the shared heap."""

    __slots__ = ("_aside", "_group", "_own", "_pool", "_seats")

    def __init__(self, board: Board, pool: Pool, group: Group) -> None:
        self._seats = board.seats
        self._pool = pool
        self._group = group
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
            elif fits(seat, self._pool.demand):
                self._aside[index] = None
                return seat
        return None

    def next_used(self) -> Seat | None:
        """The node with the fewest tasks of the service, and among these the least loaded."""
        own, seats = self._own, self._seats
        while own:
            _, _, index = heappop(own)
            seat = seats[index]
            if fits(seat, self._pool.demand):
                return seat
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


def _reason(board: Board, pools: dict[Demand, Pool], group: Group) -> str:
    """Counted when everything is placed, so that the same state always gives the same sentence."""
    if group.limit != _NO_LIMIT:
        return explain(board.seats, group.demand, group.is_crowded)
    pool = pools.get(group.demand)
    if pool is None:
        return explain(board.seats, group.demand, None)
    if not pool.reason:
        pool.reason = explain(board.seats, group.demand, None)
    return pool.reason
