"""A word to whoever waits: a call that takes long says so on standard error, once.

Decides nothing: calls have their own deadlines.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

import click

AFTER_S: Final = 3.0


@contextlib.contextmanager
def told(hint: str, after_s: float = AFTER_S) -> Iterator[None]:
    """Say the hint if the block takes longer than that. Nothing is said of what is quick."""
    timer = threading.Timer(after_s, lambda: click.echo(hint, err=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
