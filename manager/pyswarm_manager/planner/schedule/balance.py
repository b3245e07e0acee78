"""Balance: which tasks of a service to move, with the fewest moves, until it is spread as if it were all placed now.

Level by level of the placement preferences, and last over the nodes of each branch: as long as one branch has at least
two tasks more than another that has room, one moves. Each move brings the two nearer to their share and none is taken
back, so there are as many as tasks above the shares. Nodes that are a second choice, where the service keeps failing or
that do not take tasks get none; what runs on such nodes stays.

Pure counting: the ledger's usage is changed while the moves are imagined, and put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple, Protocol

from pyswarm_common.model import Task
from pyswarm_manager.planner.schedule.board import Board
from pyswarm_manager.planner.schedule.constraints import node_value
from pyswarm_manager.planner.schedule.demand import reserve
from pyswarm_manager.planner.schedule.group import Group
from pyswarm_manager.planner.seat import Seat

MAX_MOVES = 1_000
"""Of one look; more are found when these are done."""


class Move(NamedTuple):
    task: Task
    node_id: str
    """Where it goes."""


def moves(board: Board, group: Group, tasks: Iterable[Task]) -> list[Move]:
    """What to move, in an order that may be followed piece by piece. `tasks`: the service's wanted tasks."""
    if group.packs:
        return []
    found: list[Move] = []
    by_node: dict[str, list[Task]] = {}
    for task in tasks:
        by_node.setdefault(task.node_id, []).append(task)
    first, _ = board.eligible(group.demand.fixed)
    spots = [_Spot(seat, by_node.get(seat.node.id, []), group) for seat in first if seat.node.id not in group.failing]
    descriptors = tuple(preference.spread_descriptor for preference in group.spec.placement.preferences)
    try:
        _balance(_branch(spots, descriptors), found)
    finally:
        for spot in spots:
            spot.undo()
    return found


class _Place(Protocol):
    count: int

    def can_give(self) -> bool: ...

    def can_take(self) -> bool: ...

    def give(self) -> Task: ...

    def take(self) -> str:
        """Room for one more; returns the node."""
        ...


class _Spot:
    """A node."""

    def __init__(self, seat: Seat, tasks: list[Task], group: Group) -> None:
        self.seat = seat
        self._group = group
        self._own = list(tasks)
        self.count = len(tasks)
        self._taken = 0

    def can_give(self) -> bool:
        return bool(self._own)

    def can_take(self) -> bool:
        return self.count < self._group.limit and self._group.may_use(self.seat)

    def give(self) -> Task:
        """The room it leaves is not given out: it is free only when the task has ended."""
        self.count -= 1
        return self._own.pop()

    def take(self) -> str:
        reserve(self.seat.usage, self._group.demand)
        self._taken += 1
        self.count += 1
        return self.seat.node.id

    def undo(self) -> None:
        for _ in range(self._taken):
            reserve(self.seat.usage, self._group.demand, -1)


class _Branch:
    """Places whose counts should be within one of each other."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self.places = places
        self.count = sum(place.count for place in places)
        self._fullest = [(-place.count, position) for position, place in enumerate(places)]
        self._emptiest = [(place.count, position) for position, place in enumerate(places)]
        heapify(self._fullest)
        heapify(self._emptiest)

    def can_give(self) -> bool:
        return self._giver() is not None

    def can_take(self) -> bool:
        return self._taker() is not None

    def give(self) -> Task:
        position = self._giver()
        assert position is not None
        task = self.places[position].give()
        self.count -= 1
        self._counted(position)
        return task

    def take(self) -> str:
        position = self._taker()
        assert position is not None
        node_id = self.places[position].take()
        self.count += 1
        self._counted(position)
        return node_id

    def is_uneven(self) -> bool:
        giver, taker = self._giver(), self._taker()
        return giver is not None and taker is not None and self.places[giver].count - self.places[taker].count > 1

    def move(self) -> Move:
        """One task from the place with most to the one with fewest."""
        giver = self._giver()
        taker = self._taker()
        assert giver is not None
        assert taker is not None
        task = self.places[giver].give()
        node_id = self.places[taker].take()
        self._counted(giver)
        self._counted(taker)
        return Move(task, node_id)

    def _giver(self) -> int | None:
        while self._fullest:
            count, position = self._fullest[0]
            place = self.places[position]
            if -count == place.count and place.can_give():
                return position
            heappop(self._fullest)
        return None

    def _taker(self) -> int | None:
        while self._emptiest:
            count, position = self._emptiest[0]
            place = self.places[position]
            if count == place.count and place.can_take():
                return position
            heappop(self._emptiest)
        return None

    def _counted(self, position: int) -> None:
        count = self.places[position].count
        heappush(self._fullest, (-count, position))
        heappush(self._emptiest, (count, position))


def _branch(spots: Sequence[_Spot], descriptors: tuple[str, ...]) -> _Branch:
    if not descriptors:
        return _Branch(spots)
    by_value: dict[str, list[_Spot]] = {}
    for spot in spots:
        by_value.setdefault(node_value(spot.seat.node, descriptors[0]) or "", []).append(spot)
    return _Branch([_branch(group, descriptors[1:]) for group in by_value.values()])


def _balance(branch: _Branch, found: list[Move]) -> None:
    while len(found) < MAX_MOVES and branch.is_uneven():
        found.append(branch.move())
    for place in branch.places:
        if isinstance(place, _Branch):
            _balance(place, found)
