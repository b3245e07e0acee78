"""Hears of every change of links, addresses, routes, neighbours and rules, in this host's and in our namespaces.

Two sockets in the host's namespace hear all namespaces that have a number there (NETLINK_LISTEN_ALL_NSID), so a
sandbox costs no socket. Decides nothing: it says where something changed, not what. When the kernel had to drop
messages it says so, and everything is suspect.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from pyswarm_overlay.core.attributes import attributes

from .netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Message, Netlink

_SOL_NETLINK, _ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 270, 1, 8
_LINK, _NEIGH, _ADDRESS4, _ROUTE4, _ADDRESS6, _ROUTE6, _NETCONF4 = 1, 3, 5, 7, 9, 11, 24
_ROUTE_GROUPS = (_LINK, _NEIGH, _ADDRESS4, _ROUTE4, _ADDRESS6, _ROUTE6, _NETCONF4)
_NFTABLES_GROUP = 7
_NEW_GENERATION = 10 << 8 | 15
_RTM_NEWNEIGH, _RTM_DELNEIGH = 28, 29
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NUD_PERMANENT, _NUD_NOARP = 0x80, 0x40
_HEADER = struct.Struct("=IHHII")
_RCVBUFFORCE, _BUFFER = 33, 1 << 20
_MAX_READS = 256
_DATA, _CONTROL = 1 << 16, 64


@dataclass(frozen=True, slots=True)
class Change:
    """Something changed in the namespace of this number; None: in the host's own."""

    place: int | None
    of_rules: bool = False
    is_learned: bool = False
    """Of a neighbour that no one put there for good: containers learn and forget them all the time."""
    sender: int = 0
    """The port of the socket that changed rules."""


class Monitor:
    """Made, used and closed in the event loop's thread: nothing here waits."""

    def __init__(self) -> None:
        self._route = _listen(NETLINK_ROUTE, _ROUTE_GROUPS)
        self._rules = _listen(NETLINK_NETFILTER, (_NFTABLES_GROUP,))

    def filenos(self) -> tuple[int, int]:
        return self._route.fileno(), self._rules.fileno()

    def read(self) -> set[Change] | None:
        """What changed since the last call, as far as it was heard in one go; None: some of it was lost."""
        found: set[Change] = set()
        complete = _drain(self._route, found, _route_change) and _drain(self._rules, found, _rules_change)
        return found if complete else None

    def close(self) -> None:
        self._route.close()
        self._rules.close()


def number_of(netlink: Netlink, inside: Netlink) -> int | None:
    """The number by which the host's namespace calls the one `inside` belongs to; given to it if it has none."""
    try:
        fd = inside.namespace()
    except (OSError, ValueError):  # its socket is closed: it is going
        return None
    try:
        what = struct.pack("=HHi", 8, _NETNSA_FD, fd)
        any_number = struct.pack("=HHi", 8, _NETNSA_NSID, -1)
        head = b"\0\0\0\0"
        netlink.transact([Message("number a namespace", _RTM_NEWNSID, 0, head + any_number + what, (errno.EEXIST,))])
        answer = netlink.get(Message("look up a namespace", _RTM_GETNSID, 0, head + what))
    finally:
        os.close(fd)
    packed = b"" if answer is None else attributes(answer, 4).get(_NETNSA_NSID, b"")
    return int.from_bytes(packed, "little", signed=True) if packed else None


def _listen(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    opened.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
    opened.bind((0, 0))
    opened.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
    for group in groups:
        opened.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return opened


def _drain(
    opened: socket.socket, found: set[Change], parse: Callable[[int | None, int, int, bytes], Change | None]
) -> bool:
    """False when messages were lost. Reads so much and no more: the rest is there at the next call."""
    complete = True
    for _ in range(_MAX_READS):
        try:
            data, control, _flags, _sender = opened.recvmsg(_DATA, _CONTROL)
        except BlockingIOError:
            return complete
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            complete = False
            continue
        place = _place(control)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _bits, _sequence, sender = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            change = parse(place, kind, sender, data[offset + _HEADER.size : offset + length])
            if change is not None:
                found.add(change)
            offset += (length + 3) & ~3
    return complete


def _place(control: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in control:
        if level == _SOL_NETLINK and kind == _LISTEN_ALL_NSID and len(data) >= 4:
            number = int.from_bytes(data[:4], "little", signed=True)
            return number if number >= 0 else None
    return None


def _route_change(place: int | None, kind: int, _sender: int, body: bytes) -> Change | None:
    """A neighbour that is deleted has lost its state by then, so that does not tell what it was."""
    if kind not in (_RTM_NEWNEIGH, _RTM_DELNEIGH):
        return Change(place)
    state = int.from_bytes(body[8:10], "little")
    return Change(place, is_learned=not state & (_NUD_PERMANENT | _NUD_NOARP))


def _rules_change(place: int | None, kind: int, sender: int, _body: bytes) -> Change | None:
    """One message ends each transaction."""
    return Change(place, of_rules=True, sender=sender) if kind == _NEW_GENERATION else None
