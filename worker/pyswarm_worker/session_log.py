"""What the log says of the connection to the managers: each session's start and end, and why there is none.

A new leader is found within a second or two, and a manager that starts beside its daemon answers about as soon: what
goes wrong until then is not worth a line. Decides nothing else.
"""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)

_PATIENCE_S = 3.0


class SessionLog:
    """Told of what happens; `now` is monotonic."""

    def __init__(self, now: float) -> None:
        self._without_since = now
        self._manager = ""
        self._said = ""

    def started(self, manager: str) -> None:
        self._manager, self._said = manager, ""
        _log.info("session with the leader at %s has started", manager)

    def broken(self, reason: str, now: float) -> None:
        """A session ended, or could not be had from any manager."""
        if self._manager:
            self._manager, self._without_since = "", now
            _log.info("the session has ended: %s", reason)
        elif reason != self._said and now - self._without_since >= _PATIENCE_S:
            self._said = reason
            _log.warning("no session with a manager: %s", reason)
