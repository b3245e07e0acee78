"""Decoding of what somebody else wrote, or what a disk may have damaged: one kind of failure, whatever the bytes.

`msgspec` alone raises an error of its own, or UnicodeDecodeError, or RecursionError; a reader that forgets one of them
dies of a flipped bit. Callers turn `Malformed` into a sentence that names the file and what to do.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


class Malformed(ValueError):
    """The bytes are not a document of the wanted type."""


def decode_json(data: bytes, kind: type[T]) -> T:
    """A JSON document. Raises Malformed."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:  # MsgspecError and UnicodeDecodeError are ValueErrors
        raise Malformed(str(error)) from error


def decode_msgpack(data: bytes, kind: type[T]) -> T:
    """A MessagePack document. Raises Malformed."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)) from error
