"""The few system calls that Python 3.11 lacks, through ctypes.

`setns` and `unshare` change the calling *thread* only. Call them in a thread that ends afterwards (`threads.py`), never
in the event loop's thread.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace behind `fd`."""
    _check(_libc.setns(fd, CLONE_NEWNET), "setns")


def unshare_net() -> None:
    """Give the calling thread a network namespace of its own."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare")


def bind_mount(source: str, target: Path) -> None:
    _check(_libc.mount(source.encode(), os.fsencode(target), None, MS_BIND, None), f"mount {target}")


def make_private(target: Path) -> None:
    """Keep mounts made below `target` out of other mount namespaces, where they would keep namespaces alive."""
    _check(_libc.mount(None, os.fsencode(target), None, MS_PRIVATE, None), f"make {target} private")


def unmount(target: Path) -> None:
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")
