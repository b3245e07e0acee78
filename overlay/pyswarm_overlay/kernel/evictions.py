"""End the TCP connections that others opened to a sandbox and may not have any more: both ends hear of it now.

The rules refuse the next packet anyway; this is for connections on which nothing is sent. The kernel resets the peer
and the sandbox's program reads "connection aborted". A kernel that cannot end sockets for others leaves them to the
rules. Blocking.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

from pyswarm_overlay.core.tcp_sockets import IPV4, LISTEN, question

from . import libc
from .netlink import NETLINK_SOCK_DIAG, Message, Netlink

_BY_FAMILY, _DESTROY = 20, 21
_HEAD = struct.Struct("!BBxxHH16s16s")
_IDENTITY = slice(4, 52)
"""Of `struct inet_diag_msg`: addresses, ports, interface and cookie, which name exactly one socket."""
_GONE = (errno.ENOENT, errno.EOPNOTSUPP)


def evict(netfilter: Netlink, is_lost: Callable[[str], bool]) -> None:
    """`netfilter`: a socket of the sandbox; `is_lost` says of a peer's address whether its connections go."""
    thread = threading.Thread(target=_evict, args=(netfilter, is_lost), name="evictions")
    thread.start()
    thread.join()


def _evict(netfilter: Netlink, is_lost: Callable[[str], bool]) -> None:
    """In a thread of its own, since it enters the sandbox."""
    with suppress(OSError):  # the sandbox has just gone
        namespace = netfilter.namespace()
        try:
            libc.setns(namespace)
        finally:
            os.close(namespace)
        diagnosis = Netlink(NETLINK_SOCK_DIAG)
        try:
            diagnosis.transact(list(_endings(diagnosis, is_lost)))
        finally:
            diagnosis.close()


def _endings(diagnosis: Netlink, is_lost: Callable[[str], bool]) -> Iterator[Message]:
    families = (socket.AF_INET, socket.AF_INET6)
    bodies = [
        body
        for family in families
        for body in diagnosis.dump(Message("list connections", _BY_FAMILY, 0, question(family)))
    ]
    listening = {_HEAD.unpack_from(body)[2] for body in bodies if body[1] == LISTEN}
    for body in bodies:
        family, state, own_port, _peer_port, _own, peer = _HEAD.unpack_from(body)
        if state != LISTEN and own_port in listening and is_lost(_address(family, peer)):
            head = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 1 << state)
            yield Message("end a connection", _DESTROY, 0, head + body[_IDENTITY], _GONE)


def _address(family: int, data: bytes) -> str:
    """That of an IPv4 client of a socket of both families, too."""
    if family == IPV4:
        return str(ip_address(data[:4]))
    found = IPv6Address(data)
    return str(found.ipv4_mapped or found)
