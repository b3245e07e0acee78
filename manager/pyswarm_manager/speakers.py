"""Who may speak in Raft under which raft id: the node that the store says has it, by its certificate.

A manager's certificate alone opens the Raft service; this binds each raft id to one node, so that a stolen or misused
certificate speaks for its own member only. The claim is committed before a member is added (`ca.membership`), so
whoever is up to date knows it. A member that has heard no leader lately may be behind: it lets in managers that it does
not know, since one of them may be the leader that it has to catch up with; never one whose raft id another node has.
The leader that it hears stays let in: what says who that is may be in the snapshot which it is about to bring.
"""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_common.model import Node
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.tables import Kind
from pyswarm_manager.writes import FollowedStore


class Speakers:
    """The bindings as of the store now."""

    def __init__(self, store: FollowedStore, heard_leader: Callable[[], int | None]) -> None:
        self._store = store
        self._heard_leader = heard_leader
        self._nodes: dict[int, str] | None = None
        self.version = 0
        """Changes with the bindings: a stream that was let in is looked at again."""
        store.subscribe(self._on_commit)

    def _on_commit(self, index: int, events: tuple[Event, ...]) -> None:
        if any(event.kind is Kind.NODE and _claim(event.old) != _claim(event.new) for event in events):
            self._nodes = None
            self.version += 1

    def node_of(self, raft_id: int) -> str | None:
        """The node that has this raft id."""
        if self._nodes is None:
            nodes = self._store.view.nodes.values()
            self._nodes = {claim: node.id for node in nodes if (claim := _claim(node)) is not None}
        return self._nodes.get(raft_id)

    def refusal(self, raft_id: int, node_id: str) -> str | None:
        """Why this node may not speak under that raft id; None if it may."""
        owner = self.node_of(raft_id)
        if owner == node_id:
            return None
        if owner is not None:
            return f"raft id {raft_id:x} is of another node than the one that speaks ({node_id})"
        if self._heard_leader() not in (None, raft_id):
            return f"no manager has raft id {raft_id:x}: node {node_id} may not speak under it"
        return None


def _claim(item: object) -> int | None:
    status = item.manager_status if isinstance(item, Node) else None
    return status.raft_id if status is not None else None
