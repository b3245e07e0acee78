"""Messages to other managers: a gRPC stream and, beside it, a lane per peer, many messages per batch.

A peer whose stream breaks is tried again at once, and if that is refused the driver hears of it at once, since a
leader's refused connection is evidence that it died. Further tries come after 100 ms, doubling up to 1 s. Sending never
blocks: each peer has a bounded queue whose oldest messages are dropped and counted; the protocol repeats what matters.
The channels (mTLS) and the lanes (TLS) are made by the caller's `channel_for` and `open_lane`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from pyswarm.v1 import raft_pb2 as pb
from pyswarm_manager.raft.core.messages import Message
from pyswarm_manager.raft.lanes.sending import OpenLane
from pyswarm_manager.raft.peer import Callbacks, ChannelFor, Dialler, Peer
from pyswarm_manager.raft.wire import BatchEncoder

LINGER_S = 1.0
"""A peer that left the configuration is still sent what was queued for it, for this long: that it was removed."""


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
        open_lane: OpenLane | None = None,
        on_removed: Callable[[], None] = lambda: None,
    ) -> None:
        """Without `open_lane` everything goes by gRPC."""
        self._names = pb.RaftPeers(cluster_id=cluster_id, sender=raft_id, sender_address=address)
        self._dialler = Dialler(channel_for, open_lane)
        self._callbacks = Callbacks(lambda peer: None, lambda peer: None, on_removed)
        self._peers: dict[int, Peer] = {}
        self._leaving: list[Peer] = []
        self._changed = asyncio.Event()
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """Messages dropped for want of room since the start."""
        return self._dropped_before + sum(peer.dropped for peer in self._peers.values())

    @property
    def lanes(self) -> frozenset[int]:
        """To which peers messages go by a lane now."""
        return frozenset(raft_id for raft_id, peer in self._peers.items() if peer.has_lane)

    def set_address(self, address: str) -> None:
        """This manager is reached elsewhere from now on: told by the streams that are opened from now on."""
        self._names.sender_address = address
        for peer in self._peers.values():
            peer.names.sender_address = address

    def bind(self, on_lost: Callable[[int], None], on_snapshot_failed: Callable[[int], None]) -> None:
        """Where to report."""
        self._callbacks.lost, self._callbacks.snapshot_failed = on_lost, on_snapshot_failed

    def send(self, messages: Sequence[Message]) -> None:
        """To their receivers, each gets its own in one batch; messages to strangers are dropped."""
        by_peer: dict[int, list[Message]] = {}
        for message in messages:
            by_peer.setdefault(message.to, []).append(message)
        encoder = BatchEncoder()
        for raft_id, its_messages in by_peer.items():
            peer = self._peers.get(raft_id)
            if peer is not None:
                peer.send(its_messages, encoder)

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
                self._peers[raft_id] = Peer(raft_id, address, names, self._dialler, self._callbacks)
        self._changed.set()

    async def run(self) -> None:
        """Keep one task per peer, until cancelled."""
        loop = asyncio.get_running_loop()
        tasks: dict[Peer, asyncio.Task[None]] = {}
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
