"""Cut translated connections: delete their conntrack entries.

The next packet of such a connection is taken for a new one, is translated to another backend (or refused), and the
client learns that its connection is gone; `resets` sees to it that there is a next packet. The kernel picks out the
entries of a backend (Linux 5.8 and later; an earlier one lists all, and we pick): a busy host has tens of thousands of
others. Not those of an IPv6 backend, of which it would list all but the ones asked for (seen in 6.18:
`ctnetlink_filter_match_tuple` takes `ipv6_addr_cmp` for an equality): there we pick too.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Set as AbstractSet
from ipaddress import ip_address

from pyswarm_overlay.core.closing_packets import SCTP, TCP, Connection

from .netlink import Message, Netlink, attr, attributes, nested, u32

_CTNETLINK = 1 << 8
_GET, _DELETE, _STATISTICS = _CTNETLINK | 1, _CTNETLINK | 2, _CTNETLINK | 5
_ENTRIES = 1
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_REPLY_FLAGS = 2
_MATCH_SOURCE, _MATCH_PROTOCOL = 1 << 0, 1 << 3
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _IP_V4_DST, _IP_V6_SRC, _IP_V6_DST = 1, 2, 3, 4
_PROTO_NUMBER, _PROTO_SOURCE, _PROTO_DESTINATION = 1, 2, 3
_PROTOINFO, _PROTOINFO_TCP, _PROTOINFO_SCTP, _STATE, _SCTP_REPLY_TAG = 4, 1, 3, 1, 3
_CONNECTED = {TCP: range(3, 7), SCTP: range(4, 5)}
"""States in which a client may be waiting. TCP: established, fin wait, close wait, last ack; SCTP: established."""
_NFGENMSG_BYTES = 4
_FEW = 16
_NESTED = 0x8000


def cut(netlink: Netlink, withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> list[Connection]:
    """Delete datagram flows to `withdrawn` backends and every flow to `gone` ones; returns those of TCP and SCTP.

    `netlink` is a netfilter socket of the namespace meant.
    """
    if not _has_entries(netlink):
        return []
    doomed = {body: None for question in _questions(withdrawn - gone, gone) for body in netlink.dump(question)}
    found = [body for body in doomed if _is_doomed(body, withdrawn, gone)]
    netlink.transact([_delete(body) for body in found])
    return [connection for connection in map(_connection, found) if connection is not None]


def _has_entries(netlink: Netlink) -> bool:
    """Most sandboxes have none, and a look at the table of all namespaces takes the kernel milliseconds."""
    found = netlink.get(Message("count connections", _STATISTICS, 0, bytes([socket.AF_UNSPEC, 0, 0, 0])))
    count = None if found is None else attributes(found, _NFGENMSG_BYTES).get(_ENTRIES)
    return count is None or any(count)


def _questions(withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> list[Message]:
    """Each makes the kernel walk through its whole table, so of many backends all entries are asked for at once."""
    udp = socket.IPPROTO_UDP
    asked = [(udp, address) for address in sorted(withdrawn)] + [(None, address) for address in sorted(gone)]
    ipv4 = [(protocol, address) for protocol, address in asked if ":" not in address]
    ipv6 = [protocol for protocol, address in asked if ":" in address]
    if len(ipv4) <= _FEW:
        questions = [_question(socket.AF_INET, protocol, address) for protocol, address in ipv4]
    else:
        questions = [_question(socket.AF_INET, None)]
    if ipv6:
        questions.append(_question(socket.AF_INET6, None if None in ipv6 else udp))
    return questions


def _question(family: int, protocol: int | None, backend: str | None = None) -> Message:
    """Lists the entries of a protocol, whose answers come from the backend."""
    parts, flags = [], 0
    if backend is not None:
        parts.append(nested(_TUPLE_IP, attr(_IP_V4_SRC, ip_address(backend).packed)))
        flags |= _MATCH_SOURCE
    if protocol is not None:
        parts.append(nested(_TUPLE_PROTO, attr(_PROTO_NUMBER, bytes([protocol]))))
        flags |= _MATCH_PROTOCOL
    wanted = nested(_TUPLE_REPLY, *parts) + nested(_FILTER, u32(_REPLY_FLAGS, flags)) if flags else b""
    return Message("list connections", _GET, 0, bytes([family, 0, 0, 0]) + wanted)


def _is_doomed(body: bytes, withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> bool:
    values = attributes(body, _NFGENMSG_BYTES)
    original = attributes(values.get(_TUPLE_ORIG, b""))
    reply = attributes(values.get(_TUPLE_REPLY, b""))
    destination = _address(original, _IP_V4_DST, _IP_V6_DST)
    backend = _address(reply, _IP_V4_SRC, _IP_V6_SRC)
    if destination is None or backend is None or destination == backend:
        return False  # not translated: none of ours
    if backend in gone:
        return True
    protocol = _number(attributes(original.get(_TUPLE_PROTO, b"")), _PROTO_NUMBER)
    return backend in withdrawn and protocol == socket.IPPROTO_UDP


def _address(values: dict[int, bytes], v4: int, v6: int) -> str | None:
    found = attributes(values.get(_TUPLE_IP, b""))
    packed = found.get(v4) or found.get(v6) or b""
    return str(ip_address(packed)) if len(packed) in (4, 16) else None


def _number(values: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(values.get(kind, b""), "big")


def _connection(body: bytes) -> Connection | None:
    """Of an entry on which the client may be waiting."""
    values = attributes(body, _NFGENMSG_BYTES)
    original = attributes(values.get(_TUPLE_ORIG, b""))
    ports = attributes(original.get(_TUPLE_PROTO, b""))
    protocol, progress = _number(ports, _PROTO_NUMBER), attributes(values.get(_PROTOINFO, b""))
    known = attributes(progress.get(_PROTOINFO_SCTP if protocol == SCTP else _PROTOINFO_TCP, b""))
    client, server = _address(original, _IP_V4_SRC, _IP_V6_SRC), _address(original, _IP_V4_DST, _IP_V6_DST)
    if _number(known, _STATE) not in _CONNECTED.get(protocol, ()) or client is None or server is None:
        return None
    here, there = (client, _number(ports, _PROTO_SOURCE)), (server, _number(ports, _PROTO_DESTINATION))
    return Connection(here, there, protocol, _number(known, _SCTP_REPLY_TAG) if protocol == SCTP else 0)


def _delete(body: bytes) -> Message:
    values = attributes(body, _NFGENMSG_BYTES)
    same = body[:1] + bytes(_NFGENMSG_BYTES - 1) + attr(_TUPLE_ORIG | _NESTED, values[_TUPLE_ORIG])
    if _ZONE in values:
        same += attr(_ZONE, values[_ZONE])
    return Message("cut a connection", _DELETE, 0, same, (errno.ENOENT,))
