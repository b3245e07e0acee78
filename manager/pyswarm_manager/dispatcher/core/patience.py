"""How long a handover waits for nodes: which are waited for no longer, and which drained nodes' time is over.

A slow agent is waited for as long as it goes on acknowledging. One that is up, holds up others, and has acknowledged
nothing new over `LOOKS_LIMIT` looks in a row does not program its tables at all: waiting for it would hold back every
stop and every update for ever. It is excused until it acknowledges something new. Looks are counted and not seconds, so
that a leader that stood still excuses nobody.

A drain's deadline ends the wait for the tasks of its node: the user said how long it may take.

No clock: times are arguments. Who is excused and what follows is done by `holds` and `programmed`.
"""

from __future__ import annotations

from collections.abc import Collection

from pyswarm_common.model import Availability, Node

LOOKS_LIMIT = 12
"""Looks in a row at which a node held up others and had nothing new to say."""


class Patience:
    """Told at each look who holds up others and who has said something since the look before."""

    def __init__(self) -> None:
        self._looks: dict[str, int] = {}

    def look(self, behind: Collection[str], heard: Collection[str]) -> list[str]:
        """The nodes to excuse now."""
        silent = [node_id for node_id in behind if node_id not in heard]
        self._looks = {node_id: self._looks.get(node_id, 0) + 1 for node_id in silent}
        over = sorted(node_id for node_id, looks in self._looks.items() if looks >= LOOKS_LIMIT)
        for node_id in over:
            del self._looks[node_id]
        return over


class DrainDeadlines:
    """The drained nodes that have a deadline, and which of them are past it, by the clock that nobody sets."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[tuple[float, float], float]] = {}
        self._overdue: set[str] = set()

    def observe(self, node_id: str, node: Node | None, calendar: float, now: float) -> None:
        """The node is like this; `calendar` is the time of day at `now`. None: it is gone."""
        if node is None or node.spec.availability is not Availability.DRAIN or not node.spec.drain_deadline_s:
            self._due.pop(node_id, None)
            self._overdue.discard(node_id)
            return
        deadline = (node.drain_started_at, node.spec.drain_deadline_s)
        if node_id in self._due and self._due[node_id][0] == deadline:
            return
        left_s = node.drain_started_at + node.spec.drain_deadline_s - calendar
        self._due[node_id] = (deadline, now + min(left_s, node.spec.drain_deadline_s))
        self._overdue.discard(node_id)

    def take_over(self, now: float) -> list[str]:
        """The nodes whose deadline passed since the last call."""
        over = [node_id for node_id, (_, due) in self._due.items() if due <= now and node_id not in self._overdue]
        self._overdue.update(over)
        return over

    def is_over(self, node_id: str) -> bool:
        """Whether `take_over` has named it, and its drain still goes on."""
        return node_id in self._overdue
