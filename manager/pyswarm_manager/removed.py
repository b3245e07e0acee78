"""Removed nodes: their certificates are good until they expire, so they are refused by name until then.

Decides how long a removed node is remembered: until the last certificate it can have has expired, and an hour more for
clocks. So the list cannot grow beyond the removals of one certificate's lifetime.
"""

from __future__ import annotations

from pyswarm_common.errors import NodeRemoved
from pyswarm_common.model import Cluster, Node, RemovedNode
from pyswarm_manager.store.changes import Change, Create, delete
from pyswarm_manager.store.tables import Tables

MARGIN_S = 3600.0
_LONGEST_UNKNOWN_S = 90 * 24 * 3600.0


def removal(view: Tables, node: Node, now: float) -> list[Change]:
    """What removes the node and remembers it; for the change set that removes what is its."""
    return [delete(node), *remembered(view, node, now)]


def remembered(view: Tables, node: Node, now: float) -> list[Change]:
    """What makes the node's certificates refused, if they are not already."""
    if node.id in view.removed_nodes:
        return []
    return [Create(RemovedNode(id=node.id, expires_at=_last_expiry(node, view.cluster, now) + MARGIN_S))]


def _last_expiry(node: Node, cluster: Cluster | None, now: float) -> float:
    """When the newest certificate that the node may have has expired: it may have got one just now."""
    renewed = now + (cluster.spec.node_cert_expiry_s if cluster is not None else _LONGEST_UNKNOWN_S)
    return max(node.certificate.expires_at or now + _LONGEST_UNKNOWN_S, renewed)


def require_present(view: Tables, node_id: str) -> None:
    """Refuse a node that was removed or has left."""
    if node_id in view.removed_nodes:
        raise NodeRemoved(node_id)


def forgettable(view: Tables, now: float) -> list[Change]:
    """Removed nodes whose certificates have expired."""
    return [delete(removed) for removed in view.removed_nodes.values() if now >= removed.expires_at]
