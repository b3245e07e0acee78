"""This process's own terminal while a command in a container has it: every key goes there, as it is typed.

Decides nothing of what is sent. Whatever happens, the terminal is as before once the block is left.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


def is_terminal(fd: int) -> bool:
    """Whether a person types there (or sees what is written)."""
    with suppress(OSError):
        return os.isatty(fd)
    return False


def size() -> tuple[int, int]:
    """(rows, columns) of the terminal that is written to; zeros where there is none."""
    for stream in (sys.stdout, sys.stdin):
        with suppress(OSError, ValueError):
            columns, rows = os.get_terminal_size(stream.fileno())
            return rows, columns
    return 0, 0


@contextmanager
def raw_input() -> Iterator[None]:
    """Keys one by one and unchanged, Ctrl-C among them."""
    fd = sys.stdin.fileno()
    if not is_terminal(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def on_resize(say: Callable[[], None]) -> Iterator[None]:
    """Call when the window has another size."""

    def handle(number: int, frame: Any) -> None:
        del number, frame
        say()

    before = signal.signal(signal.SIGWINCH, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
