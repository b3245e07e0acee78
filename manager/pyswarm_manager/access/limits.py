"""How often something may happen under one name: so many times in a period. Pure but for the clock it is given.

Bounded: of too many names, the one that is longest quiet is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from pyswarm_common.errors import Exhausted

MAX_NAMES = 4096


class PerPeriod:
    """Counts by name. `require_room` refuses, `add` counts."""

    def __init__(self, now: Callable[[], float], times: int, period_s: float, refusal: str) -> None:
        self._now, self._times, self._period_s, self._refusal = now, times, period_s, refusal
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def require_room(self, name: str) -> None:
        """Raises Exhausted when it happened so often already."""
        start, count = self._seen.get(name, (0.0, 0))
        if count >= self._times and self._now() - start < self._period_s:
            raise Exhausted(self._refusal)

    def add(self, name: str) -> None:
        start, count = self._seen.pop(name, (self._now(), 0))
        if self._now() - start >= self._period_s:
            start, count = self._now(), 0
        self._seen[name] = (start, count + 1)
        while len(self._seen) > MAX_NAMES:
            self._seen.popitem(last=False)
