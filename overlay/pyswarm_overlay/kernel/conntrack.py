"""Cut translated connections: delete their conntrack entries.

The next packet of such a connection is taken for a new one, is translated to another backend (or refused), and the
client learns at once that its connection is gone. The kernel picks out the entries of a backend (Linux 5.8 and later;
an earlier one lists all, and we pick): a busy host has tens of thousands of others.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Set as AbstractSet
from ipaddress import ip_address

from .netlink import Message, Netlink, attr, attributes, nested, u32

_CTNETLINK = 1 << 8
_GET, _DELETE, _STATISTICS = _CTNETLINK | 1, _CTNETLINK | 2, _CTNETLINK | 5
_ENTRIES = 1
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_REPLY_FLAGS = 2
_MATCH_SOURCE, _MATCH_PROTOCOL = 1 << 0, 1 << 3
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _IP_V4_DST, _IP_V6_SRC, _IP_V6_DST = 1, 2, 3, 4
_PROTO_NUMBER = 1
_NFGENMSG_BYTES = 4
_NESTED = 0x8000


def cut(netlink: Netlink, withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> int:
    """Delete datagram flows to `withdrawn` backends and every flow to `gone` ones; returns how many.

    `netlink` is a netfilter socket of the namespace meant.
    """
    if not _has_entries(netlink):
        return 0
    questions = [_question(address, socket.IPPROTO_UDP) for address in sorted(withdrawn - gone)]
    questions += [_question(address, None) for address in sorted(gone)]
    doomed = {body: None for question in questions for body in netlink.dump(question)}
    found = [body for body in doomed if _is_doomed(body, withdrawn, gone)]
    netlink.transact([_delete(body) for body in found])
    return len(found)


def _has_entries(netlink: Netlink) -> bool:
    """Most sandboxes have none, and a look at the table of all namespaces takes the kernel milliseconds."""
    found = netlink.get(Message("count connections", _STATISTICS, 0, bytes([socket.AF_UNSPEC, 0, 0, 0])))
    count = None if found is None else attributes(found, _NFGENMSG_BYTES).get(_ENTRIES)
    return count is None or any(count)


def _question(backend: str, protocol: int | None) -> Message:
    """Lists the entries whose answers come from the backend."""
    address = ip_address(backend)
    source = _IP_V4_SRC if address.version == 4 else _IP_V6_SRC
    parts, flags = [nested(_TUPLE_IP, attr(source, address.packed))], _MATCH_SOURCE
    if protocol is not None:
        parts.append(nested(_TUPLE_PROTO, attr(_PROTO_NUMBER, bytes([protocol]))))
        flags |= _MATCH_PROTOCOL
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = bytes([family, 0, 0, 0])
    body = head + nested(_TUPLE_REPLY, *parts) + nested(_FILTER, u32(_REPLY_FLAGS, flags))
    return Message("list connections", _GET, 0, body)


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
    protocol = attributes(original.get(_TUPLE_PROTO, b"")).get(_PROTO_NUMBER, b"\0")[0]
    return backend in withdrawn and protocol == socket.IPPROTO_UDP


def _address(values: dict[int, bytes], v4: int, v6: int) -> str | None:
    found = attributes(values.get(_TUPLE_IP, b""))
    packed = found.get(v4) or found.get(v6)
    return None if packed is None else str(ip_address(packed))


def _delete(body: bytes) -> Message:
    values = attributes(body, _NFGENMSG_BYTES)
    same = body[:1] + bytes(_NFGENMSG_BYTES - 1) + attr(_TUPLE_ORIG | _NESTED, values[_TUPLE_ORIG])
    if _ZONE in values:
        same += attr(_ZONE, values[_ZONE])
    return Message("cut a connection", _DELETE, 0, same, (errno.ENOENT,))
