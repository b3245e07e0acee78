"""Nodes that were removed from the cluster, as the managers told: this node refuses their certificates.

Kept on disk, so that a restart without a manager in reach refuses them still; forgotten when the certificates have
expired. Bounded: beyond the limit those that expire first are forgotten first.
"""

from __future__ import annotations

from collections.abc import Callable

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1 import types_pb2
from pyswarm_common.codec import timestamp
from pyswarm_common.errors import NodeRemoved, PyswarmError
from pyswarm_common.rpc import Peer
from pyswarm_common.rpc.peers import PeerGate, default_limits

MAX_REMOVED = 10_000


class RemovedNodes:
    """What the gate of the agent's server asks."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._removed: dict[str, types_pb2.RemovedNode] = {}
        self.gate = PeerGate(default_limits(), self._refusal, monotonic)

    def load(self, saved: pb.TrustUpdate) -> None:
        """What was kept on disk."""
        self._removed = {removed.id: removed for removed in saved.removed}

    def learn(self, update: pb.TrustUpdate) -> pb.TrustUpdate | None:
        """Refuse these too, and cut what they have open. What to keep on disk; None if there is no news."""
        before = dict(self._removed)
        if update.complete:
            self._removed = {}
        self._removed |= {removed.id: removed for removed in update.removed}
        self._forget()
        for node_id in self._removed.keys() - before.keys():
            self.gate.cut(node_id, NodeRemoved(node_id))
        if self._removed.keys() == before.keys():
            return None
        return pb.TrustUpdate(removed=self._removed.values(), complete=True)

    def _refusal(self, peer: Peer) -> PyswarmError | None:
        return NodeRemoved(peer.node_id) if peer.node_id in self._removed else None

    def _forget(self) -> None:
        now = self._clock()
        latest = sorted(self._removed.values(), key=_expiry, reverse=True)[:MAX_REMOVED]
        self._removed = {removed.id: removed for removed in latest if _expiry(removed) > now}


def _expiry(removed: types_pb2.RemovedNode) -> float:
    return timestamp(removed.expires_at)
