"""The sending end of a lane: connects, shows its ticket, and writes frames without waiting for anybody.

Decides nothing: what it cannot take, the gRPC stream carries. A lane whose data is not acknowledged for
`USER_TIMEOUT_MS` is closed by the kernel, so one that something on the way swallows does not swallow messages for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from pyswarm_manager.raft.lanes.frames import framed
from pyswarm_manager.raft.lanes.receiving import ACCEPTED, PROTOCOL

CONNECT_TIMEOUT_S: Final = 5.0
USER_TIMEOUT_MS: Final = 1_000
MAX_UNSENT_BYTES: Final = 4 << 20
"""More than a follower that keeps up ever leaves unread; the stream queues the rest, and drops what is too much."""

OpenLane = Callable[[str, bytes], Awaitable["SendingLane"]]
"""Opens a lane to the manager at that address with this ticket. Raises OSError or TimeoutError."""


class SendingLane(asyncio.Protocol):
    """One connection. `accepted` once the receiver knows the ticket; `closed` when it is gone."""

    def __init__(self, ticket: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._ticket = ticket
        self._transport: asyncio.Transport | None = None
        self.accepted: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's it is
        self._transport = transport
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # not a TCP socket
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        transport.write(framed(self._ticket))

    def data_received(self, data: bytes) -> None:
        if data == ACCEPTED and not self.accepted.done():
            self.accepted.set_result(None)
        else:
            self.close()  # a lane has one direction

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.accepted.done():
            self.accepted.set_exception(ConnectionResetError("the manager did not accept the lane"))
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self, payload: bytes) -> bool:
        """Whether this lane takes it. What it took may still be lost with the connection."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return False
        transport.write(framed(payload))
        return True

    def close(self) -> None:
        """What was taken is sent first."""
        if self._transport is not None:
            self._transport.close()


async def open_lane(
    host: str, port: int, context: ssl.SSLContext | None, server_name: str | None, ticket: bytes
) -> SendingLane:
    """Connect to a manager's door and show the ticket. Raises OSError or TimeoutError."""
    if context is not None:
        context.set_alpn_protocols([PROTOCOL])
    loop = asyncio.get_running_loop()
    lane: SendingLane | None = None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, lane = await loop.create_connection(
                lambda: SendingLane(ticket), host, port, ssl=context, server_hostname=server_name
            )
            await lane.accepted
    except BaseException:
        if lane is not None:
            lane.close()
            if lane.accepted.done() and not lane.accepted.cancelled():
                lane.accepted.exception()  # told by what is raised
        raise
    return lane
