"""What a server's log says of people it refused: the first few, then only how many more, so that nobody can fill it.

Bounded in names as in lines. Never says what was asked for beyond the method.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

LINES: Final = 5
PERIOD_S: Final = 60.0
MAX_NAMES: Final = 1_000


class RefusalLog:
    """At most `LINES` a period for each name; the next period begins with what was left out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, name: str, what: str) -> None:
        start, count = self._seen.pop(name, (self._clock(), 0))
        if self._clock() - start >= PERIOD_S:
            if count > LINES:
                _log.warning("refused: %s, %d more times", name, count - LINES)
            start, count = self._clock(), 0
        self._seen[name] = (start, count + 1)
        while len(self._seen) > MAX_NAMES:
            self._seen.popitem(last=False)
        if count < LINES:
            _log.warning("refused: %s, %s", name, what)
