"""Netlink's attributes, as every message of the kernel has them: read, never made. Pure."""

from __future__ import annotations

import struct

_ATTR = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` on, by type; of a repeated type the last. Stops at the first malformed one."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found
