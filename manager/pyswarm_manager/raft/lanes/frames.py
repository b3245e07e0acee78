"""How a lane is cut into frames: a length of four bytes, then so many bytes. Pure.

Decides only where a frame ends, and that none is larger than may be. What is in one, others know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MAX_FRAME_BYTES: Final = 16 << 20
"""As of a gRPC message."""
_LENGTH: Final = 4


class FrameTooLarge(Exception):
    """Whoever speaks is no manager of this version: nothing that follows can be read."""


def framed(payload: bytes) -> bytes:
    """The payload as one frame."""
    return len(payload).to_bytes(_LENGTH, "big") + payload


class Frames:
    """Feed it bytes as they come; it gives whole frames. Holds one frame at most, and what came with it."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are whole now. Raises FrameTooLarge as soon as a length says so."""
        self._buffer += data
        start = 0
        while (end := self._end_of(start)) is not None:
            yield bytes(self._buffer[start + _LENGTH : end])
            start = end
        del self._buffer[:start]

    def _end_of(self, start: int) -> int | None:
        """Where the frame that begins at `start` ends; None if it is not whole."""
        if len(self._buffer) - start < _LENGTH:
            return None
        size = int.from_bytes(self._buffer[start : start + _LENGTH], "big")
        if size > self._max_bytes:
            raise FrameTooLarge(f"a frame of {size} bytes, and {self._max_bytes} are allowed")
        end = start + _LENGTH + size
        return end if end <= len(self._buffer) else None
