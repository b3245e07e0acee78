"""Who is turned away at this manager's door whatever it asks, and whose open calls end: nodes that were removed, and
people whose token or certificate was.

By this manager's own view of the store, so a follower does it as soon as it has applied the removal.
"""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_common.errors import NodeRemoved, PyswarmError, Unauthenticated
from pyswarm_common.rpc import Peer
from pyswarm_common.rpc.peers import PeerGate, default_limits
from pyswarm_manager.access.admission import UNKNOWN_CREDENTIAL
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Kind
from pyswarm_manager.writes import FollowedStore

_UNCUT = frozenset({"/pyswarm.v1.CA/Leave"})
"""The call that makes a node a removed one is still answered."""


def make_gate(store: FollowedStore, monotonic: Callable[[], float]) -> PeerGate:
    """For as long as the store lives."""

    def refusal(peer: Peer) -> PyswarmError | None:
        return NodeRemoved(peer.node_id) if peer.node_id in store.view.removed_nodes else None

    gate = PeerGate(default_limits(), refusal, monotonic, _UNCUT)

    def on_change(index: int, events: tuple[Event, ...]) -> None:
        for event in events:
            if event.kind is Kind.REMOVED_NODE and event.new is not None:
                gate.cut(event.object.id, NodeRemoved(event.object.id))
            elif event.kind is Kind.CREDENTIAL and event.new is None:
                gate.cut(event.object.id, Unauthenticated(UNKNOWN_CREDENTIAL))

    store.subscribe(on_change)
    return gate
