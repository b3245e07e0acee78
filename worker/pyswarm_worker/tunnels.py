"""Who this node's encrypted tunnels lead to: what the managers say, handed to the overlay.

Comes before tables and tasks of the same message, so that a task's first packets find the tunnels being made. What
cannot be done at once the overlay tries again; nothing is kept here. The other direction, this node's own keys, is part
of what the node says of itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_overlay.encryption.types import TunnelKey, TunnelPeer


class Tunnels(Protocol):
    """`pyswarm_overlay`'s encryption fulfils it."""

    async def update_peers(
        self, peers: Iterable[TunnelPeer], removed: Iterable[str] = (), *, complete: bool = False
    ) -> None: ...

    def set_period(self, period_s: float, /) -> None: ...


async def assign_peers(tunnels: Tunnels | None, message: pb.Assignments) -> None:
    """Of one message. A complete one names all peers, an increment the differences."""
    if tunnels is None:
        return
    is_complete = message.type == pb.Assignments.TYPE_COMPLETE
    if message.tunnel_key_rotation_s:
        tunnels.set_period(message.tunnel_key_rotation_s)
    if is_complete or message.update_peers or message.remove_peer_ids:
        peers = [_peer(peer) for peer in message.update_peers]
        await tunnels.update_peers(peers, tuple(message.remove_peer_ids), complete=is_complete)


def _peer(peer: pb.TunnelPeer) -> TunnelPeer:
    keys = (TunnelKey(public_key=key.public_key, port=key.port, number=key.number) for key in peer.keys)
    return TunnelPeer(node_id=peer.node_id, address=peer.data_path_address, keys=tuple(keys))
