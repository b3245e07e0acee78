"""Messages to other managers over gRPC: one stream per peer, many messages per batch.

A peer whose stream breaks is tried again at once, and if that is refused the driver hears of it at once, since a
leader's refused connection is evidence that it died. Further tries come after 100 ms, doubling up to 1 s. Sending never
blocks: each peer has a bounded queue whose oldest messages are dropped and counted; the protocol repeats what matters.
The channels (mTLS) are made by the caller's `channel_for`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import grpc
import msgspec

from pyswarm.v1 import raft_pb2 as pb
from pyswarm.v1 import raft_pb2_grpc
from pyswarm_common.errors import NODE_REMOVED_KEY
from pyswarm_manager.raft.core.messages import Append, InstallSnapshot, Message
from pyswarm_manager.raft.wire import encode, snapshot_chunks

REMOVED_KEY = "pyswarm-raft-removed"
"""Trailing metadata of a refusal: the caller was removed from the cluster."""

ACCEPTED_KEY = "pyswarm-raft-accepted"
"""Initial metadata of a stream whose peers were found right."""

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 1.0
LINGER_S = 1.0
"""A peer that left the configuration is still sent what was queued for it, for this long: that it was removed."""
SNAPSHOT_TIMEOUT_S = 120.0
MAX_QUEUED_MESSAGES = 4096
MAX_QUEUED_BYTES = 32 * 1024 * 1024
MAX_BATCH_BYTES = 2 * 1024 * 1024

ChannelFor = Callable[[str], grpc.aio.Channel]


class Callbacks(msgspec.Struct):
    """Where the driver and the manager hear of what happened on the network."""

    lost: Callable[[int], None]
    snapshot_failed: Callable[[int], None]
    removed: Callable[[], None]


class GrpcTransport:
    """This manager's way to the others. `run` carries; everything else returns at once.

    `address` is told to whoever we speak to, so that a manager which does not know us yet can answer.
    """

    def __init__(
        self,
        cluster_id: str,
        raft_id: int,
        address: str,
        channel_for: ChannelFor,
        *,
        on_removed: Callable[[], None] = lambda: None,
    ) -> None:
        self._names = pb.RaftPeers(cluster_id=cluster_id, sender=raft_id, sender_address=address)
        self._channel_for = channel_for
        self._callbacks = Callbacks(lambda peer: None, lambda peer: None, on_removed)
        self._peers: dict[int, _Peer] = {}
        self._leaving: list[_Peer] = []
        self._changed = asyncio.Event()
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """Messages dropped for want of room since the start."""
        return self._dropped_before + sum(peer.dropped for peer in self._peers.values())

    def set_address(self, address: str) -> None:
        """This manager is reached elsewhere from now on: told by the streams that are opened from now on."""
        self._names.sender_address = address
        for peer in self._peers.values():
            peer.names.sender_address = address

    def bind(self, on_lost: Callable[[int], None], on_snapshot_failed: Callable[[int], None]) -> None:
        """Where to report."""
        self._callbacks.lost, self._callbacks.snapshot_failed = on_lost, on_snapshot_failed

    def send(self, messages: Sequence[Message]) -> None:
        """Queue for their receivers; messages to strangers are dropped."""
        for message in messages:
            peer = self._peers.get(message.to)
            if peer is not None:
                peer.queue(message)

    def set_peers(self, peers: Mapping[int, str]) -> None:
        """The other members now; `run` connects to them."""
        for raft_id, peer in list(self._peers.items()):
            if peers.get(raft_id) != peer.address:
                self._leaving.append(self._peers.pop(raft_id))
        for raft_id, address in peers.items():
            if raft_id not in self._peers:
                names = pb.RaftPeers()
                names.CopyFrom(self._names)
                names.receiver = raft_id
                self._peers[raft_id] = _Peer(raft_id, address, names, self._channel_for, self._callbacks)
        self._changed.set()

    async def run(self) -> None:
        """Keep one task per peer, until cancelled."""
        loop = asyncio.get_running_loop()
        tasks: dict[_Peer, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for peer in self._peers.values():
                    if peer not in tasks:
                        tasks[peer] = group.create_task(peer.run())
                for peer in self._leaving:
                    self._dropped_before += peer.dropped
                    peer.leave()
                    if peer in tasks:
                        loop.call_later(LINGER_S, tasks.pop(peer).cancel)
                self._leaving.clear()
                await self._changed.wait()


class _Peer:
    """The stream to one other manager."""

    def __init__(
        self, raft_id: int, address: str, names: pb.RaftPeers, channel_for: ChannelFor, callbacks: Callbacks
    ) -> None:
        self.raft_id, self.address = raft_id, address
        self.dropped = 0
        self.names, self._channel_for, self._callbacks = names, channel_for, callbacks
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._snapshot: InstallSnapshot | None = None
        self._wake = asyncio.Event()
        self._is_leaving = False

    def queue(self, message: Message) -> None:
        """Send this when there is a connection."""
        if isinstance(message, InstallSnapshot):
            self._snapshot = message  # a newer one replaces one that has not begun
        else:
            self._queue.append(message)
            self._queued_bytes += _size(message)
            while len(self._queue) > MAX_QUEUED_MESSAGES or self._queued_bytes > MAX_QUEUED_BYTES:
                self._queued_bytes -= _size(self._queue.popleft())
                self.dropped += 1
        self._wake.set()

    def leave(self) -> None:
        """No longer a member: say what is queued, and end."""
        self._is_leaving = True
        self._wake.set()

    async def run(self) -> None:
        """Connect, talk, and connect again."""
        backoff_s = 0.0
        while True:
            was_connected = False
            channel = self._channel_for(self.address)
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
        accepted = asyncio.ensure_future(_is_accepted(call))
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
            return await self._ended(call, accepted)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return await self._ended(call, accepted)
        finally:
            accepted.cancel()
            call.cancel()
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _write_queued(self, call: grpc.aio.StreamUnaryCall[pb.RaftBatch, pb.RaftExchangeEnd]) -> None:
        self._wake.clear()
        while self._queue and not call.done():
            size, messages = 0, []
            while self._queue and size < MAX_BATCH_BYTES:
                message = self._queue.popleft()
                size += _size(message)
                messages.append(encode(message))
            self._queued_bytes -= size
            await call.write(pb.RaftBatch(messages=messages))

    async def _part(self, call: grpc.aio.StreamUnaryCall[pb.RaftBatch, pb.RaftExchangeEnd]) -> None:
        """Wait until what was written last has arrived."""
        await call.done_writing()
        await call

    async def _ended(
        self,
        call: grpc.aio.StreamUnaryCall[pb.RaftBatch, pb.RaftExchangeEnd],
        accepted: asyncio.Future[bool],
    ) -> bool:
        """Report why; whether the stream had worked."""
        code = await call.code()
        if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED):
            if any(key in (REMOVED_KEY, NODE_REMOVED_KEY) for key, _ in await call.trailing_metadata() or ()):
                self._callbacks.removed()
            return False
        worked = await accepted
        if code is grpc.StatusCode.UNAVAILABLE and not worked:
            self._callbacks.lost(self.raft_id)
        return worked

    async def _send_snapshot(self, stub: raft_pb2_grpc.RaftAsyncStub, message: InstallSnapshot) -> None:
        try:
            await stub.InstallSnapshot(iter(snapshot_chunks(message, self.names)), timeout=SNAPSHOT_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            self._callbacks.snapshot_failed(self.raft_id)


async def _is_accepted(call: grpc.aio.StreamUnaryCall[pb.RaftBatch, pb.RaftExchangeEnd]) -> bool:
    """Whether the other side took the stream; False if it ended without."""
    try:
        return any(key == ACCEPTED_KEY for key, _ in await call.initial_metadata() or ())
    except grpc.aio.AioRpcError:
        return False


def _size(message: Message) -> int:
    if isinstance(message, Append):
        return 64 + sum(len(entry.data) + 16 for entry in message.entries)
    return 64
