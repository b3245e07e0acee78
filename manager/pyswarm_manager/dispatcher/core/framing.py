"""Protobuf's length-delimited fields, by hand.

A message that holds parts already serialised is the concatenation of its framed parts; so a network table is serialised
once, and its bytes go to every node on that network. Field numbers come from the descriptors, never from literals.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor

_LENGTH_DELIMITED = 2


def framed(key: bytes, payload: bytes) -> bytes:
    """One field with its key and length."""
    return key + _varint(len(payload)) + payload


def key_of(message: Descriptor, field: str) -> bytes:
    """The key that precedes a length-delimited field of that message."""
    return _varint(message.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
