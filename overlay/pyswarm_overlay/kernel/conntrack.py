"""Cut translated connections: delete their conntrack entries.

The next packet of such a connection is taken for a new one, is translated to another backend (or refused), and the
client learns at once that its connection is gone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Set as AbstractSet
from ipaddress import ip_address

from .netlink import Message, Netlink, attr, attributes

_CTNETLINK = 1 << 8
_GET, _DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE = 1, 2, 18
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_V4_SRC, _IP_V4_DST, _IP_V6_SRC, _IP_V6_DST = 1, 2, 3, 4
_PROTO_NUMBER = 1
_NFGENMSG = bytes([socket.AF_INET, 0, 0, 0])
_NESTED = 0x8000


def cut(netlink: Netlink, withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> int:
    """Delete datagram flows to `withdrawn` backends and every flow to `gone` ones; returns how many.

    `netlink` is a netfilter socket of the namespace meant.
    """
    entries = netlink.dump(Message("list connections", _GET, 0, _NFGENMSG))
    doomed = [body for body in entries if _is_doomed(body, withdrawn, gone)]
    netlink.transact([_delete(body) for body in doomed])
    return len(doomed)


def _is_doomed(body: bytes, withdrawn: AbstractSet[str], gone: AbstractSet[str]) -> bool:
    values = attributes(body, len(_NFGENMSG))
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
    values = attributes(body, len(_NFGENMSG))
    same = _NFGENMSG + attr(_TUPLE_ORIG | _NESTED, values[_TUPLE_ORIG])
    if _ZONE in values:
        same += attr(_ZONE, values[_ZONE])
    return Message("cut a connection", _DELETE, 0, same, (errno.ENOENT,))
