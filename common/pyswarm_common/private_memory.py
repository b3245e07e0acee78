"""Keys in a daemon's memory stay out of core dumps, and out of reach of who may not read every process anyway."""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Of this process alone: what it starts (containers!) dumps core as the machine's settings say."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl: {os.strerror(ctypes.get_errno())}")
