"""When advice is followed: once it has been right for a while.

Fewer tasks only as far as the highest number that was advised within the down window, more only as far as the lowest
within the up window. A new leader, who knows nothing of before, begins as if the present number had just been advised:
it changes nothing before its windows are full.

Pure: time is an argument, by a clock that nobody sets. Bounded: windows are, and so is the number of pieces of advice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pyswarm_common.model import AutoscaleSpec

DEFAULT_DOWN_WINDOW_S = 300.0
DEFAULT_UP_WINDOW_S = 30.0
MAX_ADVICE = 2_000
"""Kept at most; with more in a window the oldest are forgotten."""


@dataclass(slots=True)
class Window:
    """What was advised for one service lately."""

    advice: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MAX_ADVICE))

    def settle(self, spec: AutoscaleSpec, current: int, advised: int, now: float) -> int:
        """How many tasks there should be now, `advised` being the latest advice."""
        if not self.advice:
            self.advice.append((now, current))
        self.advice.append((now, advised))
        down_s, up_s = down_window_s(spec), up_window_s(spec)
        while self.advice[0][0] < now - max(down_s, up_s):
            self.advice.popleft()
        highest = max(replicas for at, replicas in self.advice if at >= now - down_s)
        lowest = min(replicas for at, replicas in self.advice if at >= now - up_s)
        if lowest > current:
            return lowest
        return min(current, highest)


def down_window_s(spec: AutoscaleSpec) -> float:
    return DEFAULT_DOWN_WINDOW_S if spec.scale_down_window_s is None else spec.scale_down_window_s


def up_window_s(spec: AutoscaleSpec) -> float:
    return DEFAULT_UP_WINDOW_S if spec.scale_up_window_s is None else spec.scale_up_window_s
