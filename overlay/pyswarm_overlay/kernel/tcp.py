"""The TCP sockets of a sandbox, listed by the kernel in its namespace. Blocking: for a thread that ends with the job.

Not from /proc/net/tcp: that walks through all sockets of the machine, and a busy server has thousands that merely wait
for their end; it took up to seconds where this takes a millisecond.
"""

from __future__ import annotations

import os
from pathlib import Path

from pyswarm_overlay.core.tcp_sockets import IPV4, IPV6, count_served, question

from . import libc, netns
from .netlink import NETLINK_SOCK_DIAG, Message, Netlink

_BY_FAMILY = 20


def served(path: Path) -> int:
    """How many connections of others to the namespace at `path` have something under way; none if there is none."""
    fd = netns.open_existing(path)
    if fd is None:
        return 0
    try:
        libc.setns(fd)
    finally:
        os.close(fd)
    netlink = Netlink(NETLINK_SOCK_DIAG)
    try:
        lists = [netlink.dump(Message("list sockets", _BY_FAMILY, 0, question(family))) for family in (IPV4, IPV6)]
    finally:
        netlink.close()
    return count_served(body for found in lists for body in found)
