"""Choosing among nodes that are not alike to a group, and spreading over the values of node labels, nested in order.

A tree with one level per preference; without preferences it is a single leaf. Each task goes down to the branch with
the fewest tasks of the service; at a leaf the group's rank decides. A branch with no node left that fits is dropped,
so a branch over its share is still used when the others are full, and choosing always ends.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from pyswarm_manager.planner.schedule.constraints import node_value
from pyswarm_manager.planner.schedule.group import Group, Rank
from pyswarm_manager.planner.seat import Seat


class SpreadTree:
    def __init__(self, seats: list[Seat], group: Group) -> None:
        descriptors = tuple(preference.spread_descriptor for preference in group.spec.placement.preferences)
        self._root = _branch(seats, descriptors, group)

    def take(self) -> Seat | None:
        """The node for one more task, which the caller then counts as placed there."""
        return self._root.take()

    def refresh(self) -> None:
        """Nodes became more welcome than they were: order them anew."""
        self._root.refresh()


class _Leaf:
    """Nodes with the same values of all labels. Ranks only get worse between two refreshes (but for the node taken
    last, which is looked at again first), so an entry that is out of date is put back with its new rank."""

    def __init__(self, seats: list[Seat], group: Group) -> None:
        counts = group.counts
        self.count: int = sum(counts.get(seat.node.id, 0) for seat in seats) if counts else 0
        self._seats = {seat.index: seat for seat in seats}
        self._group = group
        self._heap: list[tuple[Rank, int]] = []
        self.refresh()

    def refresh(self) -> None:
        rank = self._group.rank
        self._heap = [(rank(seat), index) for index, seat in self._seats.items()]
        heapify(self._heap)

    def take(self) -> Seat | None:
        group = self._group
        while self._heap:
            rank, index = heappop(self._heap)
            seat = self._seats[index]
            current = group.rank(seat)
            if current != rank:
                heappush(self._heap, (current, index))
            elif group.may_use(seat):
                heappush(self._heap, (rank, index))  # out of date once the caller has counted the task
                self.count += 1
                return seat
        return None


class _Fork:
    """One level: a branch for each value of the label; nodes without the label share one."""

    def __init__(self, branches: list[_Leaf | _Fork]) -> None:
        self.count: int = sum(branch.count for branch in branches)
        self._branches = branches
        self._heap = [(branch.count, position) for position, branch in enumerate(branches)]
        heapify(self._heap)

    def refresh(self) -> None:
        for branch in self._branches:
            branch.refresh()
        self._heap = [(branch.count, position) for position, branch in enumerate(self._branches)]
        heapify(self._heap)

    def take(self) -> Seat | None:
        while self._heap:
            _, position = heappop(self._heap)
            branch = self._branches[position]
            seat = branch.take()
            if seat is not None:
                heappush(self._heap, (branch.count, position))
                self.count += 1
                return seat
        return None


def _branch(seats: list[Seat], descriptors: tuple[str, ...], group: Group) -> _Leaf | _Fork:
    if not descriptors:
        return _Leaf(seats, group)
    by_value: dict[str, list[Seat]] = {}
    for seat in seats:
        by_value.setdefault(node_value(seat.node, descriptors[0]) or "", []).append(seat)
    return _Fork([_branch(group_of, descriptors[1:], group) for group_of in by_value.values()])
