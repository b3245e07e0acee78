"""Placement preferences: spreading a service's tasks evenly over the values of node labels, nested in their order.

A tree with one level per preference. Each task goes down to the branch with the fewest tasks of the service; at a leaf
the usual order decides (tasks of the service, then load). A branch with no node left that fits is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

from pyswarm_manager.planner.schedule.board import Seat
from pyswarm_manager.planner.schedule.constraints import node_value


class SpreadTree:
    def __init__(
        self, seats: list[Seat], descriptors: tuple[str, ...], counts: Mapping[str, int], fits: Callable[[Seat], bool]
    ) -> None:
        self._root = _branch(seats, descriptors, counts, fits)

    def take(self) -> Seat | None:
        """The node for one more task, which the caller then counts as placed there."""
        return self._root.take()


class _Leaf:
    """Nodes with the same values of all labels."""

    def __init__(self, seats: list[Seat], counts: Mapping[str, int], fits: Callable[[Seat], bool]) -> None:
        self.count: int = sum(counts.get(seat.node.id, 0) for seat in seats)
        self._seats = {seat.index: seat for seat in seats}
        self._counts = counts
        self._fits = fits
        self._heap = [(counts.get(seat.node.id, 0), seat.load(), seat.index) for seat in seats]
        heapify(self._heap)

    def take(self) -> Seat | None:
        while self._heap:
            count, load, index = heappop(self._heap)
            seat = self._seats[index]
            current = (self._counts.get(seat.node.id, 0), seat.load())
            if current != (count, load):
                heappush(self._heap, (*current, index))
            elif self._fits(seat):
                heappush(self._heap, (count, load, index))  # out of date once the caller has counted the task
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


def _branch(
    seats: list[Seat], descriptors: tuple[str, ...], counts: Mapping[str, int], fits: Callable[[Seat], bool]
) -> _Leaf | _Fork:
    if not descriptors:
        return _Leaf(seats, counts, fits)
    by_value: dict[str, list[Seat]] = {}
    for seat in seats:
        by_value.setdefault(node_value(seat.node, descriptors[0]) or "", []).append(seat)
    return _Fork([_branch(group, descriptors[1:], counts, fits) for group in by_value.values()])
