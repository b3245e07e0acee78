"""What is looked at when: places where something changed soon, all others in turn. Pure: the time is an argument.

A suspect is due a moment after the first change, however many follow, so that work under way settles and a busy place
is looked at at bounded cost: no place more often than once per `PAUSE_S`. All others are looked at in turn, a few at a
time, so that one round takes a period while the cost per second stays below a bound whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Place = tuple[str, str]
"""Kind of place ("host", "network", "sandbox") and which one."""

SETTLE_S = 0.3
PAUSE_S = 1.0


@dataclass(slots=True)
class Suspects:
    """Changed in place by its owner."""

    _due: dict[Place, float] = field(default_factory=dict)
    _looked: dict[Place, float] = field(default_factory=dict)

    def suspect(self, place: Place, now: float) -> None:
        if place not in self._due:
            self._due[place] = max(now + SETTLE_S, self._looked.get(place, -PAUSE_S) + PAUSE_S)

    def again(self, place: Place, when: float) -> None:
        """Look at it then, whatever else was heard."""
        self._due[place] = when

    def take(self, now: float) -> list[Place]:
        """Those due; they count as looked at."""
        due = [place for place, when in self._due.items() if when <= now]
        for place in due:
            del self._due[place]
            self._looked[place] = now
        return due

    def next_due(self) -> float | None:
        return min(self._due.values(), default=None)

    def keep(self, places: Iterable[Place]) -> None:
        """Forget all others."""
        kept = set(places)
        self._due = {place: when for place, when in self._due.items() if place in kept}
        self._looked = {place: when for place, when in self._looked.items() if place in kept}


@dataclass(slots=True)
class Round:
    """Goes through all places again and again, `per_second` of them at most."""

    period_s: float
    per_second: float
    _queue: list[Place] = field(default_factory=list)
    _owed: float = 0.0

    def take(self, places: Sequence[Place], passed_s: float) -> list[Place]:
        """Those whose turn it is after `passed_s`; of places that have gone by then none."""
        rate = min(self.per_second, len(places) / self.period_s)
        self._owed = min(self._owed + rate * passed_s, max(1.0, rate))
        present = set(places)
        taken: list[Place] = []
        while self._owed >= 1 and present:
            if not self._queue:
                self._queue = list(reversed(places))
            place = self._queue.pop()
            if place in present:
                taken.append(place)
                self._owed -= 1
        return taken
