"""Read, change, write, and once more when somebody else was faster: each write names the version that it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pyswarm_cli.failures import FromDaemon
from pyswarm_common.errors import OutOfSequence

R = TypeVar("R")
_ATTEMPTS = 10


def until_first(attempt: Callable[[], R]) -> R:
    """What `attempt` returns once nobody overtakes it. It reads anew each time; any other refusal is raised at once."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return attempt()
        except FromDaemon as error:
            if not isinstance(error.refusal, OutOfSequence):
                raise
    return attempt()
