"""Tell clients in sandboxes that their connections were cut: each hears of it now, not with its next packet. Blocking.

`conntrack.cut` has deleted the translations. Each TCP client is probed (`core.closing_packets`): its answer is taken
for the packet of an unknown connection, and reset by the VIP's rules, or by the backend that it is led to. The client
reads "connection reset by peer", as if its server had ended. Whose socket still stands after a moment (nobody answered,
or the kernel had answered another probe just before) is ended by socket diagnosis; that one reads "connection aborted".
SCTP clients are sent an ABORT.

All sandboxes are probed before anybody waits, so that many of them take no longer than one.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address

from pyswarm_overlay.core.closing_packets import TCP, Connection, closing_packet

from . import libc
from .netlink import NETLINK_SOCK_DIAG, Message, Netlink

_BY_FAMILY, _DESTROY = 20, 21
_ALL_STATES = 0xFFFFFFFF
_TIME_WAIT, _LISTEN = 6, 10
_NO_COOKIE = 0xFFFFFFFF
_PATIENCE_S = 0.1
_STEP_S = 0.002
_GONE = (errno.ENOENT, errno.EOPNOTSUPP)
"""Of a socket that ended meanwhile, or of a kernel that cannot end sockets for others."""


@dataclass(slots=True)
class _Visited:
    """A sandbox's connections that still have sockets."""

    diagnosis: Netlink
    left: list[Connection]

    def look(self) -> bool:
        self.left = [one for one in self.left if _is_connected(self.diagnosis.get(_question(_BY_FAMILY, one)))]
        return bool(self.left)

    def destroy(self) -> None:
        messages = [_question(_DESTROY, one) for one in self.left]
        self.diagnosis.transact(messages)


def reset(cut: Sequence[tuple[Netlink, Sequence[Connection]]]) -> None:
    """`cut`: a netfilter socket of each sandbox, and its connections that were cut. Returns when none is left."""
    visits = {netfilter: connections for netfilter, connections in cut if connections}
    if visits:
        thread = threading.Thread(target=_reset, args=(visits,), name="resets")
        thread.start()
        thread.join()


def _reset(visits: Mapping[Netlink, Sequence[Connection]]) -> None:
    """In a thread of its own, since it enters the sandboxes."""
    with ExitStack() as stack:
        visited: list[_Visited] = []
        for netfilter, connections in visits.items():
            with suppress(OSError):  # the sandbox has just gone, and its clients with it
                visited.append(_visit(netfilter, connections, stack))
        until = time.monotonic() + _PATIENCE_S
        while any(one.look() for one in visited) and time.monotonic() < until:
            time.sleep(_STEP_S)
        for one in visited:
            if one.look():
                one.destroy()


def _visit(netfilter: Netlink, connections: Sequence[Connection], stack: ExitStack) -> _Visited:
    fd = netfilter.namespace()
    try:
        libc.setns(fd)
    finally:
        os.close(fd)
    diagnosis = Netlink(NETLINK_SOCK_DIAG)
    stack.callback(diagnosis.close)
    for family in (socket.AF_INET, socket.AF_INET6):
        mine = [one for one in connections if one.is_ipv6 == (family == socket.AF_INET6)]
        if mine:
            _send(family, mine)
    return _Visited(diagnosis, [one for one in connections if one.protocol == TCP])


def _send(family: socket.AddressFamily, connections: Sequence[Connection]) -> None:
    """To ourselves: a client is in the namespace that this thread is in."""
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sender:
        for connection in connections:
            with suppress(OSError):  # its address has gone: socket diagnosis ends it
                sender.sendto(closing_packet(connection), (connection.client[0], 0))


def _is_connected(found: bytes | None) -> bool:
    """The kernel tells of a socket that listens there, when there is no better one: it is not ours to end."""
    return found is not None and found[1] not in (_LISTEN, _TIME_WAIT)


def _question(kind: int, connection: Connection) -> Message:
    """`struct inet_diag_req_v2` of exactly this socket."""
    family = socket.AF_INET6 if connection.is_ipv6 else socket.AF_INET
    head = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, _ALL_STATES)
    ports = struct.pack(">HH", connection.client[1], connection.server[1])
    source, destination = (ip_address(end[0]).packed.ljust(16, b"\0") for end in (connection.client, connection.server))
    anywhere = struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    return Message("end a connection", kind, 0, head + ports + source + destination + anywhere, _GONE)
