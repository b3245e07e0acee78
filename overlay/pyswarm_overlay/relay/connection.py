"""One client's connection and the one to its backend, tied together.

Each side is read only as fast as the other one takes it, and its end is handed on: a half-closed connection stays half
open, a reset is a reset.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import cast

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Side(asyncio.Protocol):
    """One of the two ends. `ended` is called once, when it is gone."""

    def __init__(self, ended: Callable[[Side], None], began: Callable[[Side], None] = lambda side: None) -> None:
        self._ended = ended
        self._began = began
        self.other: Side | None = None
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        """What came before there was another side: reading stops with the first of it."""
        self._is_finished = False
        """Its end has come; the other may still be sending."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._began(self)

    @property
    def socket(self) -> socket.socket:
        """For options and addresses only."""
        assert self.transport is not None
        return cast(socket.socket, self.transport.get_extra_info("socket"))

    def tie(self, other: Side) -> None:
        """From now on; what either said before goes first."""
        self.other, other.other = other, self
        for side in (self, other):
            side._catch_up()

    def _catch_up(self) -> None:
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)
        if self._is_finished:
            self.eof_received()
        elif self.transport is not None:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
            if self.transport is not None:
                self.transport.pause_reading()
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._is_finished = True
        other = self.other
        if other is None:
            return True  # it may still want to hear
        if other.transport is None or other.transport.is_closing():
            return False
        with suppress(OSError):
            other.transport.write_eof()
        if other._is_finished:  # both have said all they had to say
            other.transport.close()
            return False
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        other, self.other = self.other, None
        self.transport = None
        if other is not None:
            other.other = None
            if error is None:
                other.close()
            else:
                other.reset()
        self._ended(self)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """The peer is told at once that nothing comes any more."""
        if self.transport is not None:
            with suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()
