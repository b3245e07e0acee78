"""The receiving end of lanes: which connection belongs to which stream, and what comes on it.

A stream that was let in is offered a lane: a ticket, told to it over mTLS. Whoever connects to the manager's HTTPS
door under `PROTOCOL` and sends that ticket first speaks for the stream; anybody else is hung up on. So a lane needs no
client certificate, and ends with its stream. What may be in a frame, and from whom, the stream decides (`Stream`).

Bounded: `MAX_OFFERS` tickets, `MAX_UNKNOWN` connections that have not shown one, `TICKET_TIMEOUT_S` for that.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, Protocol

from pyswarm_manager.raft.lanes.frames import Frames, FrameTooLarge

PROTOCOL: Final = "pyswarm-raft"
"""By which a connection to the door says that it is a lane (ALPN)."""
ACCEPTED: Final = b"\x01"
"""What the receiver says once, when the ticket was right."""
MAX_OFFERS: Final = 256
MAX_UNKNOWN: Final = 64
TICKET_TIMEOUT_S: Final = 5.0
_TICKET_BYTES: Final = 32


class Stream(Protocol):
    """What a lane needs of the stream that it belongs to."""

    def take(self, batch: bytes) -> bool:
        """Take what came in one frame; False: this lane may not go on."""
        ...

    def call_when_room(self, callback: Callable[[], None]) -> bool:
        """Whether too much is unread here; if so, calls back as soon as it is not."""
        ...


class Lanes:
    """One per manager: the tickets that were given out."""

    def __init__(self) -> None:
        self._offers: dict[bytes, Offer] = {}
        self._unknown = 0

    def offer(self, stream: Stream) -> Offer | None:
        """A lane for this stream, until the offer is closed; None if there are too many."""
        if len(self._offers) >= MAX_OFFERS:
            return None
        offer = Offer(stream, secrets.token_bytes(_TICKET_BYTES), self._withdraw)
        self._offers[offer.ticket] = offer
        return offer

    def protocol(self) -> asyncio.Protocol:
        """For a connection that says it is a lane."""
        return _Incoming(self)

    def arrived(self) -> bool:
        """One more connection without a ticket; False if there are too many."""
        if self._unknown >= MAX_UNKNOWN:
            return False
        self._unknown += 1
        return True

    def left(self) -> None:
        """One of them has shown a ticket, or is gone."""
        self._unknown -= 1

    def find(self, ticket: bytes) -> Offer | None:
        """What was offered under this ticket."""
        return self._offers.get(ticket)

    def _withdraw(self, offer: Offer) -> None:
        self._offers.pop(offer.ticket, None)


class Offer:
    """A ticket, and the lane that came with it, if one did."""

    def __init__(self, stream: Stream, ticket: bytes, withdraw: Callable[[Offer], None]) -> None:
        self.stream, self.ticket = stream, ticket
        self._withdraw = withdraw
        self._transport: asyncio.Transport | None = None

    def taken(self, transport: asyncio.Transport) -> None:
        """The newest connection counts: its sender has given up the one before."""
        if self._transport is not None:
            self._transport.abort()
        self._transport = transport

    def close(self) -> None:
        """The stream has ended."""
        self._withdraw(self)
        if self._transport is not None:
            self._transport.abort()


class _Incoming(asyncio.Protocol):
    """One connection: first a ticket, then frames."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._frames = Frames(_TICKET_BYTES)
        self._stream: Stream | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's it is
        if not self._lanes.arrived():
            transport.abort()
            return
        self._transport = transport
        self._deadline = asyncio.get_running_loop().call_later(TICKET_TIMEOUT_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._identified()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            for frame in self._frames.feed(data):
                if not self._take(frame):
                    self._transport.abort()
                    return
        except FrameTooLarge:
            self._transport.abort()
            return
        if self._stream is not None and self._stream.call_when_room(self._resume):
            self._transport.pause_reading()

    def _take(self, frame: bytes) -> bool:
        return self._stream.take(frame) if self._stream is not None else self._show_ticket(frame)

    def _show_ticket(self, ticket: bytes) -> bool:
        """Nothing may follow a ticket before it is accepted: till then a frame is no larger than a ticket."""
        assert self._transport is not None
        offer = self._lanes.find(ticket)
        if offer is None:
            return False
        self._identified()
        offer.taken(self._transport)
        self._stream, self._frames = offer.stream, Frames()
        self._transport.write(ACCEPTED)
        return True

    def _identified(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._lanes.left()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
