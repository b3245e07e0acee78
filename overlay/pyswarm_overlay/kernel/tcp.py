"""The TCP sockets of a sandbox, read in its namespace. Blocking: for a thread that ends with the job."""

from __future__ import annotations

import os
from pathlib import Path

from pyswarm_overlay.core.tcp_sockets import count_inbound

from . import libc, netns

_MAX_BYTES = 8 << 20
"""Of each list: beyond that (some 50,000 sockets) the rest is not looked at."""


def inbound(path: Path) -> int:
    """How many connections others have to the namespace kept at `path`; none if there is none."""
    fd = netns.open_existing(path)
    if fd is None:
        return 0
    try:
        libc.setns(fd)
    finally:
        os.close(fd)
    return count_inbound(line for name in ("tcp", "tcp6") for line in _lines(name))


def _lines(name: str) -> list[str]:
    try:
        with Path(f"/proc/thread-self/net/{name}").open(encoding="ascii") as file:
            return file.read(_MAX_BYTES).splitlines()
    except FileNotFoundError:  # a kernel without IPv6
        return []
