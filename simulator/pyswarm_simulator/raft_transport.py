"""Raft's messages over the simulated network: bytes on the way, as on the wire, and the servicer's rules at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from pyswarm.v1 import raft_pb2 as pb
from pyswarm_manager.raft.core.messages import InstallSnapshot, Message
from pyswarm_manager.raft.driver import RaftNode
from pyswarm_manager.raft.wire import assemble_snapshot, decode, encode, snapshot_chunks
from pyswarm_simulator.network import Network, host_at
from pyswarm_simulator.world import ProcessLoop

RECONNECT_S = 2.0
NOTICE_S = 0.05
"""A refused connection is noticed after at most so long."""


class Receiver(Protocol):
    """A manager's process, as other managers' transports see it."""

    loop: ProcessLoop
    raft: RaftNode | None


class SimTransport:
    """One manager's way to the others."""

    def __init__(
        self,
        network: Network,
        host: str,
        raft_id: int,
        address: str,
        loop: ProcessLoop,
        find: Callable[[str], Receiver | None],
        on_removed: Callable[[], None],
    ) -> None:
        """`find`: the manager that runs at an address, if one does."""
        self._network, self._host, self._id, self._address, self._loop = network, host, raft_id, address, loop
        self._find, self._on_removed = find, on_removed
        self._peers: Mapping[int, str] = {}
        self._on_lost: Callable[[int], None] = lambda peer: None
        self._on_snapshot_failed: Callable[[int], None] = lambda peer: None
        self.sent: Callable[[Message], None] = lambda message: None
        """Told of every message, for whoever checks them."""

    def bind(self, on_lost: Callable[[int], None], on_snapshot_failed: Callable[[int], None]) -> None:
        self._on_lost, self._on_snapshot_failed = on_lost, on_snapshot_failed

    def set_peers(self, peers: Mapping[int, str]) -> None:
        self._peers = dict(peers)

    async def run(self) -> None:
        """Keeps its streams open: whoever was removed is told when it connects, even if it has nothing to say."""
        while True:
            for peer, address in list(self._peers.items()):
                self._post(address, partial(self._connected, address, peer))
            await asyncio.sleep(RECONNECT_S)

    def _connected(self, address: str, peer: int) -> None:
        receiver = self._find(address)
        if receiver is not None:
            self._hand_over(receiver, peer, lambda: ())

    def report_lost(self, peer: int) -> None:
        """The connection to that member broke, or is said to have."""
        if self._loop.is_alive:
            self._loop.call_soon(self._on_lost, peer)

    def reaches(self, address: str) -> int | None:
        """The raft id that this member reaches there."""
        return next((raft_id for raft_id, at in self._peers.items() if at == address), None)

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> None:
        if not self._loop.is_alive:
            return
        by_peer: dict[int, list[Message]] = {}
        for message in messages:
            self.sent(message)
            if message.to not in self._peers:
                continue
            if isinstance(message, InstallSnapshot):
                self._send_snapshot(message)
            else:
                by_peer.setdefault(message.to, []).append(message)
        for peer, batch in by_peer.items():
            self._send_batch(peer, batch)

    def _send_batch(self, peer: int, batch: list[Message]) -> None:
        """What was said at once mostly arrives at once; in bad weather each message fares for itself."""
        is_rough = self._network.weather.drop > 0
        for part in [[message] for message in batch] if is_rough else [batch]:
            data = pb.RaftBatch(messages=[encode(message) for message in part]).SerializeToString()
            address = self._peers[peer]
            self._post(address, partial(self._arrive, address, peer, data))

    def _post(self, address: str, deliver: Callable[[], None]) -> None:
        self._network.post(self._host, host_at(address), deliver)

    def _arrive(self, address: str, peer: int, data: bytes) -> None:
        receiver = self._find(address)
        if receiver is None:
            self._network.world.after_s(self._network.world.rng.uniform(0, NOTICE_S), lambda: self.report_lost(peer))
            return
        self._hand_over(
            receiver, peer, lambda: [decode(m, self._id, peer) for m in pb.RaftBatch.FromString(data).messages]
        )

    def _hand_over(self, receiver: Receiver, peer: int, messages: Callable[[], Sequence[Message]]) -> None:
        """As the Raft servicer does."""
        raft = receiver.raft
        if raft is None or raft.raft_id != peer:
            return
        if raft.is_removed(self._id):
            self._post(self._address, lambda: self._on_removed() if self._loop.is_alive else None)
            return
        raft.learn_peer(self._id, self._address)
        batch = messages()
        if batch:
            receiver.loop.spawn(raft.receive(batch))

    def _send_snapshot(self, message: InstallSnapshot) -> None:
        names = pb.RaftPeers(sender=self._id, receiver=message.to)
        chunks = [chunk.SerializeToString() for chunk in snapshot_chunks(message, names)]
        address, peer = self._peers[message.to], message.to
        world = self._network.world
        if world.chance(self._network.weather.drop * 2):
            world.after_s(1.0, lambda: self._snapshot_lost(peer))
            return
        self._post(address, lambda: self._snapshot_arrives(address, peer, chunks))

    def _snapshot_arrives(self, address: str, peer: int, chunks: Sequence[bytes]) -> None:
        receiver = self._find(address)
        if receiver is None:
            self._snapshot_lost(peer)
            return
        first, *rest = [pb.RaftSnapshotChunk.FromString(chunk) for chunk in chunks]
        data = b"".join(chunk.data for chunk in rest)
        self._hand_over(receiver, peer, lambda: [assemble_snapshot(first.peers, first.header, data)])

    def _snapshot_lost(self, peer: int) -> None:
        if self._loop.is_alive:
            self._loop.call_soon(self._on_snapshot_failed, peer)
