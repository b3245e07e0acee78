"""The connection to one other manager: its stream, its lane while there is one, and what waits to be sent.

The stream is opened again whenever it breaks; what was queued by then is forgotten. While the peer offers a lane and
the lane stands, messages go there at once, without waiting for this peer's task; what it does not take is queued for
the stream. Sending never blocks: the queue is bounded, and its oldest messages are dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence

import grpc
import msgspec

from pyswarm.v1 import raft_pb2 as pb
from pyswarm.v1 import raft_pb2_grpc
from pyswarm_common.errors import NODE_REMOVED_KEY
from pyswarm_manager.raft.core.messages import Append, InstallSnapshot, Message
from pyswarm_manager.raft.lanes.sending import OpenLane, SendingLane
from pyswarm_manager.raft.wire import BatchEncoder, encode, snapshot_chunks

_log = logging.getLogger(__name__)

REMOVED_KEY = "pyswarm-raft-removed"
"""Trailing metadata of a refusal: the caller was removed from the cluster."""
ACCEPTED_KEY = "pyswarm-raft-accepted"
"""Initial metadata of a stream whose peers were found right."""
LANE_KEY = "pyswarm-raft-lane-bin"
"""Initial metadata beside it: the ticket of a lane."""

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 1.0
LANE_RETRY_S = 5.0
SNAPSHOT_TIMEOUT_S = 120.0
MAX_QUEUED_MESSAGES = 4096
MAX_QUEUED_BYTES = 32 * 1024 * 1024
MAX_BATCH_BYTES = 2 * 1024 * 1024

ChannelFor = Callable[[str], grpc.aio.Channel]
_Call = grpc.aio.StreamUnaryCall[pb.RaftBatch, pb.RaftExchangeEnd]


class Callbacks(msgspec.Struct):
    """Where the driver and the manager hear of what happened on the network."""

    lost: Callable[[int], None]
    snapshot_failed: Callable[[int], None]
    removed: Callable[[], None]


class Dialler(msgspec.Struct, frozen=True):
    """How others are reached."""

    channel_for: ChannelFor
    open_lane: OpenLane | None


class Peer:
    """`send` at any time; `run` carries."""

    def __init__(self, raft_id: int, address: str, names: pb.RaftPeers, dialler: Dialler, callbacks: Callbacks) -> None:
        self.raft_id, self.address = raft_id, address
        self.dropped = 0
        self.names, self._dialler, self._callbacks = names, dialler, callbacks
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._snapshot: InstallSnapshot | None = None
        self._lane: SendingLane | None = None
        self._wake = asyncio.Event()
        self._is_leaving = False

    @property
    def has_lane(self) -> bool:
        """Whether messages go by a lane now."""
        return self._lane is not None

    def send(self, messages: Sequence[Message], encoder: BatchEncoder) -> None:
        """Now if there is a lane, else when there is a connection."""
        if self._goes_by_lane(messages, encoder):
            return
        for message in messages:
            self._enqueue(message)
        self._wake.set()

    def _goes_by_lane(self, messages: Sequence[Message], encoder: BatchEncoder) -> bool:
        if self._lane is None or any(isinstance(message, InstallSnapshot) for message in messages):
            return False
        return self._lane.send(encoder.encoded(messages))

    def _enqueue(self, message: Message) -> None:
        if isinstance(message, InstallSnapshot):
            self._snapshot = message  # a newer one replaces one that has not begun
            return
        self._queue.append(message)
        self._queued_bytes += _size(message)
        while len(self._queue) > MAX_QUEUED_MESSAGES or self._queued_bytes > MAX_QUEUED_BYTES:
            self._queued_bytes -= _size(self._queue.popleft())
            self.dropped += 1

    def leave(self) -> None:
        """No longer a member: say what is queued, and end."""
        self._is_leaving = True
        self._wake.set()

    async def run(self) -> None:
        """Connect, talk, and connect again."""
        backoff_s = 0.0
        while True:
            was_connected = False
            channel = self._dialler.channel_for(self.address)
            try:
                was_connected = await self._converse(channel)
            finally:
                await channel.close(None)
            if self._is_leaving:
                return
            self._forget_queued()
            if was_connected:
                backoff_s = 0.0  # a stream that worked and broke is tried again at once
            else:
                backoff_s = min(max(FIRST_BACKOFF_S, backoff_s * 2), MAX_BACKOFF_S)
                await asyncio.sleep(backoff_s)

    def _forget_queued(self) -> None:
        """What was to be said is old by the time a connection is back."""
        self.dropped += len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        if self._snapshot is not None:
            self._snapshot = None
            self._callbacks.snapshot_failed(self.raft_id)

    async def _converse(self, channel: grpc.aio.Channel) -> bool:
        """Send batches until the stream ends; whether it ever worked."""
        stub = raft_pb2_grpc.RaftStub(channel)
        call = stub.Exchange()  # type: ignore[call-arg]  # written to below; the stubs know iterators only
        call.add_done_callback(lambda _: self._wake.set())
        sending: asyncio.Task[None] | None = None
        greeting = asyncio.ensure_future(_greeting(call))
        lane = asyncio.ensure_future(self._keep_lane(greeting))
        try:
            await call.write(pb.RaftBatch(peers=self.names))
            while not call.done():
                await self._write_queued(call)
                if self._snapshot is not None and (sending is None or sending.done()):
                    message, self._snapshot = self._snapshot, None
                    sending = asyncio.create_task(self._send_snapshot(stub, message))
                if self._is_leaving:
                    await self._part(call)
                    return True
                await self._wake.wait()
            return await self._ended(call, greeting)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return await self._ended(call, greeting)
        finally:
            helpers = [task for task in (greeting, lane, sending) if task is not None]
            for task in helpers:
                task.cancel()
            call.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _keep_lane(self, greeting: asyncio.Future[dict[str, str | bytes]]) -> None:
        """A lane beside the stream, if the peer offers one; until cancelled. Without one all goes by the stream."""
        ticket = (await asyncio.shield(greeting)).get(LANE_KEY)
        open_lane = self._dialler.open_lane
        while open_lane is not None and isinstance(ticket, bytes):
            try:
                lane = await open_lane(self.address, ticket)
            except (OSError, TimeoutError) as error:
                _log.debug("no lane to %s: %s", self.address, error)
            else:
                await self._use(lane)
            await asyncio.sleep(LANE_RETRY_S)

    async def _use(self, lane: SendingLane) -> None:
        """For as long as it stands."""
        self._lane = lane
        try:
            await asyncio.shield(lane.closed)
        finally:
            self._lane = None
            lane.close()

    async def _write_queued(self, call: _Call) -> None:
        self._wake.clear()
        while self._queue and not call.done():
            size, messages = 0, []
            while self._queue and size < MAX_BATCH_BYTES:
                message = self._queue.popleft()
                size += _size(message)
                messages.append(encode(message))
            self._queued_bytes -= size
            await call.write(pb.RaftBatch(messages=messages))

    async def _part(self, call: _Call) -> None:
        """Wait until what was written last has arrived."""
        await call.done_writing()
        await call

    async def _ended(self, call: _Call, greeting: asyncio.Future[dict[str, str | bytes]]) -> bool:
        """Report why; whether the stream had worked."""
        code = await call.code()
        if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED):
            if any(key in (REMOVED_KEY, NODE_REMOVED_KEY) for key, _ in await call.trailing_metadata() or ()):
                self._callbacks.removed()
            return False
        worked = ACCEPTED_KEY in await greeting
        if code is grpc.StatusCode.UNAVAILABLE and not worked:
            self._callbacks.lost(self.raft_id)
        return worked

    async def _send_snapshot(self, stub: raft_pb2_grpc.RaftAsyncStub, message: InstallSnapshot) -> None:
        try:
            await stub.InstallSnapshot(iter(snapshot_chunks(message, self.names)), timeout=SNAPSHOT_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            self._callbacks.snapshot_failed(self.raft_id)


async def _greeting(call: _Call) -> dict[str, str | bytes]:
    """How the other side took the stream; empty if it ended without."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        return dict(iter(await call.initial_metadata() or ()))
    return {}


def _size(message: Message) -> int:
    if isinstance(message, Append):
        return 64 + sum(len(entry.data) + 16 for entry in message.entries)
    return 64
