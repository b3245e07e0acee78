"""Read an nftables table through a netfilter socket: its rules as the kernel tells them, the keys of a set.

No libnftables: it prints a whole table in milliseconds, under a lock of the process, where these take tenths of one.
"""

from __future__ import annotations

import errno
import sys

from pyswarm_overlay.core import nft_attributes as nft
from pyswarm_overlay.core.attributes import attributes

from .netlink import KernelRefusal, Message, Netlink

_NFGENMSG_BYTES = 4
_ELEMENTS, _ELEMENT_KEY, _DATA_VALUE = 3, 1, 1
_ATTR_HEADER_BYTES = 4


def has_table(netlink: Netlink, family: int, table: str) -> bool:
    request = _request("find a table", nft.GETTABLE, nft.head(family) + nft.text(1, table))
    return netlink.get(request) is not None


def read_rules(netlink: Netlink, family: int, table: str, chain: str) -> bytes | None:
    """Whatever tells this chain and its rules from others; None where there is none."""
    named = nft.head(family) + nft.text(1, table)
    found = netlink.get(_request("read a chain", nft.GETCHAIN, named + nft.text(3, chain)))
    if found is None:
        return None
    rules = netlink.dump(_request("list rules", nft.GETRULE, named + nft.text(2, chain)))
    return b"".join([found, *rules])


def read_keys(netlink: Netlink, family: int, table: str, name: str) -> frozenset[bytes] | None:
    """The keys of a set; None where there is none."""
    where = nft.head(family) + nft.text(1, table) + nft.text(2, name)
    try:
        bodies = netlink.dump(_request("list a set", nft.GETELEM, where))
    except KernelRefusal as refusal:
        if refusal.errno == errno.ENOENT:
            return None
        raise
    lists = (attributes(body, _NFGENMSG_BYTES).get(_ELEMENTS, b"") for body in bodies)
    return frozenset(key for elements in lists for key in _keys(elements))


def _keys(elements: bytes) -> list[bytes]:
    """Elements are attributes of one type, so they cannot be told apart by it."""
    keys, offset = [], 0
    while offset + _ATTR_HEADER_BYTES <= len(elements):
        length = int.from_bytes(elements[offset : offset + 2], sys.byteorder)
        if length < _ATTR_HEADER_BYTES:
            break
        element = attributes(elements[offset + _ATTR_HEADER_BYTES : offset + length])
        keys.append(attributes(element.get(_ELEMENT_KEY, b"")).get(_DATA_VALUE, b""))
        offset += (length + 3) & ~3
    return keys


def _request(what: str, kind: int, body: bytes) -> Message:
    return Message(what, nft.kind_of(kind), 0, body)
