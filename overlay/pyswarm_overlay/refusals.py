"""What the kernel refuses is `Unavailable` to callers: nothing they said was wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyswarm_common.errors import Unavailable


@contextmanager
def kernel_errors(what: str) -> Iterator[None]:
    """Translate the system's errors of setting `what` up."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot set up {what}: {error}") from error
