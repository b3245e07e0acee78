"""Standard streams that are closed, full, or left by whoever read them.

A process may be started without one (`<&-`, a bare supervisor). Then what is read is empty, and what is written to
standard output fails: output that nobody gets, a token that is shown once, must not pass for delivered.
"""

from __future__ import annotations

import os
import sys

_MODES = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w"))


def open_missing() -> None:
    """Give this process the standard streams that it was started without, before any file takes their numbers."""
    for number, (name, flags, mode) in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, flags)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def drop_unwritten() -> None:
    """Before the end: what could not be written is given up, and does not fail once more while Python shuts down."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
