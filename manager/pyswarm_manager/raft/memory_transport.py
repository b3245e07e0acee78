"""A network in one process, for tests: members reach one another through a switchboard that can cut and lose."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pyswarm_manager.raft.core.messages import Message

Receiver = Callable[[Sequence[Message]], Awaitable[None]]


class Switchboard:
    """Who is up, and who cannot reach whom."""

    def __init__(self) -> None:
        self.receivers: dict[int, Receiver] = {}
        self.cut: set[tuple[int, int]] = set()  # (from, to)
        self.on_lost: dict[int, Callable[[int], None]] = {}

    def connect(self, raft_id: int, receiver: Receiver) -> None:
        """A member is up."""
        self.receivers[raft_id] = receiver

    def disconnect(self, raft_id: int) -> None:
        """A member is down; connections to it break, and are refused."""
        self.receivers.pop(raft_id, None)
        for peer, on_lost in self.on_lost.items():
            if peer != raft_id:
                on_lost(raft_id)

    def isolate(self, raft_id: int, others: Sequence[int]) -> None:
        """Nothing passes between a member and the others."""
        for other in others:
            self.cut |= {(raft_id, other), (other, raft_id)}

    def heal(self) -> None:
        """Everyone reaches everyone."""
        self.cut.clear()


class MemoryTransport:
    """One member's end of the switchboard."""

    MAX_QUEUED = 4096

    def __init__(self, raft_id: int, board: Switchboard) -> None:
        self._id, self._board = raft_id, board
        self._queue: asyncio.Queue[Message] = asyncio.Queue(self.MAX_QUEUED)
        self._on_lost: Callable[[int], None] = lambda peer: None
        self.dropped = 0

    def bind(self, on_lost: Callable[[int], None], on_snapshot_failed: Callable[[int], None]) -> None:
        """Where to report a refused connection; snapshots are never lost here."""
        self._on_lost = self._board.on_lost[self._id] = on_lost

    def set_peers(self, peers: Mapping[int, str]) -> None:
        """The switchboard knows everybody by id."""

    def send(self, messages: Sequence[Message]) -> None:
        """Queue; the oldest goes when there is no room."""
        for message in messages:
            if self._queue.full():
                self._queue.get_nowait()
                self.dropped += 1
            self._queue.put_nowait(message)

    async def run(self) -> None:
        """Deliver in order, what is waiting for one receiver in one call."""
        while True:
            batches: dict[int, list[Message]] = {}
            message = await self._queue.get()
            batches.setdefault(message.to, []).append(message)
            while not self._queue.empty():
                message = self._queue.get_nowait()
                batches.setdefault(message.to, []).append(message)
            for peer, batch in batches.items():
                await self._deliver(peer, batch)

    async def _deliver(self, peer: int, batch: list[Message]) -> None:
        if (self._id, peer) in self._board.cut:
            return
        receiver = self._board.receivers.get(peer)
        if receiver is None:
            self._on_lost(peer)
        else:
            await receiver(batch)
