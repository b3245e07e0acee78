"""What an agent makes of the managers' word on encrypted tunnels."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_overlay.encryption.types import TunnelKey, TunnelPeer
from pyswarm_worker.tunnels import assign_peers


class Tunnels:
    def __init__(self) -> None:
        self.peers: dict[str, TunnelPeer] = {}
        self.periods: list[float] = []
        self.calls = 0

    async def update_peers(
        self, peers: Iterable[TunnelPeer], removed: Iterable[str] = (), *, complete: bool = False
    ) -> None:
        self.calls += 1
        self.peers = {} if complete else self.peers
        for node_id in removed:
            del self.peers[node_id]
        self.peers.update((peer.node_id, peer) for peer in peers)

    def set_period(self, period_s: float) -> None:
        self.periods.append(period_s)


def told(*node_ids: str, kind: pb.Assignments.Type.ValueType, removed: tuple[str, ...] = ()) -> pb.Assignments:
    keys = [types_pb2.TunnelKey(public_key=b"k" * 32, port=51820, number=7)]
    peers = [pb.TunnelPeer(node_id=name, data_path_address="192.0.2.1", keys=keys) for name in node_ids]
    return pb.Assignments(type=kind, update_peers=peers, remove_peer_ids=removed)


async def test_a_complete_message_names_all_and_an_increment_the_differences() -> None:
    tunnels = Tunnels()
    await assign_peers(tunnels, told("n1", "n2", kind=pb.Assignments.TYPE_COMPLETE))
    key = TunnelKey(public_key=b"k" * 32, port=51820, number=7)
    assert tunnels.peers["n1"] == TunnelPeer(node_id="n1", address="192.0.2.1", keys=(key,))
    await assign_peers(tunnels, told("n3", kind=pb.Assignments.TYPE_INCREMENTAL, removed=("n1",)))
    assert tunnels.peers.keys() == {"n2", "n3"}
    await assign_peers(tunnels, told(kind=pb.Assignments.TYPE_COMPLETE))
    assert tunnels.peers == {}


@pytest.mark.parametrize("period_s", [0.0, 3600.0])
async def test_messages_about_other_things_do_not_touch_the_tunnels(period_s: float) -> None:
    tunnels = Tunnels()
    await assign_peers(tunnels, pb.Assignments(type=pb.Assignments.TYPE_INCREMENTAL, tunnel_key_rotation_s=period_s))
    assert tunnels.calls == 0
    assert tunnels.periods == ([period_s] if period_s else [])
    await assign_peers(None, told("n1", kind=pb.Assignments.TYPE_COMPLETE))
