"""Cut translated connections of a sandbox: delete their conntrack entries.

The next packet of such a connection is taken for a new one, is translated to another backend (or refused), and the
client learns that its connection is gone; `resets` sees to it that there is a next packet.
"""

from __future__ import annotations

import socket
from collections.abc import Set as AbstractSet

from pyswarm_overlay.core.attributes import attributes
from pyswarm_overlay.core.closing_packets import SCTP, TCP, Connection

from .conntrack_wire import CTNETLINK, NFGENMSG_BYTES, Entry, number, question
from .netlink import Message, Netlink

_STATISTICS = CTNETLINK | 5
_ENTRIES = 1
_PROTOINFO_TCP, _PROTOINFO_SCTP, _STATE, _SCTP_REPLY_TAG = 1, 3, 1, 3
_CONNECTED = {TCP: range(3, 7), SCTP: range(4, 5)}
"""States in which a client may be waiting. TCP: established, fin wait, close wait, last ack; SCTP: established."""
_FEW = 16


def cut(netlink: Netlink, withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> list[Connection]:
    """Delete datagram flows to `withdrawn` backends and every flow to `gone` ones; returns those of TCP and SCTP.

    `netlink` is a netfilter socket of the namespace meant.
    """
    if not _has_entries(netlink):
        return []
    bodies = {body: None for message in _questions(withdrawn - gone, gone) for body in netlink.dump(message)}
    found = [entry for entry in map(Entry, bodies) if _is_doomed(entry, withdrawn, gone)]
    netlink.transact([entry.deletion() for entry in found])
    return [connection for connection in map(_connection, found) if connection is not None]


def _has_entries(netlink: Netlink) -> bool:
    """Most sandboxes have none, and a look at the table of all namespaces takes the kernel milliseconds."""
    found = netlink.get(Message("count connections", _STATISTICS, 0, bytes([socket.AF_UNSPEC, 0, 0, 0])))
    count = None if found is None else attributes(found, NFGENMSG_BYTES).get(_ENTRIES)
    return count is None or any(count)


def _questions(withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> list[Message]:
    """Each makes the kernel walk through its whole table, so of many backends all entries are asked for at once."""
    udp = socket.IPPROTO_UDP
    asked = [(udp, address) for address in sorted(withdrawn)] + [(None, address) for address in sorted(gone)]
    ipv4 = [(protocol, address) for protocol, address in asked if ":" not in address]
    ipv6 = [protocol for protocol, address in asked if ":" in address]
    if len(ipv4) <= _FEW:
        questions = [question(socket.AF_INET, protocol=protocol, source=address) for protocol, address in ipv4]
    else:
        questions = [question(socket.AF_INET)]
    if ipv6:
        questions.append(question(socket.AF_INET6, protocol=None if None in ipv6 else udp))
    return questions


def _is_doomed(entry: Entry, withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> bool:
    backend = entry.reply.source[0]
    if backend not in gone and backend not in withdrawn:
        return False
    return entry.is_translated and (backend in gone or entry.original.protocol == socket.IPPROTO_UDP)


def _connection(entry: Entry) -> Connection | None:
    """Of an entry on which the client may be waiting."""
    original = entry.original
    kind = _PROTOINFO_SCTP if original.protocol == SCTP else _PROTOINFO_TCP
    known = attributes(entry.progress.get(kind, b""))
    if number(known, _STATE) not in _CONNECTED.get(original.protocol, ()):
        return None
    if not original.source[0] or not original.destination[0]:
        return None
    tag = number(known, _SCTP_REPLY_TAG) if original.protocol == SCTP else 0
    return Connection(original.source, original.destination, original.protocol, tag)
