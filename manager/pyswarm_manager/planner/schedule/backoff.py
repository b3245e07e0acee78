"""Nodes on which a service keeps failing: they are chosen last for the spec that fails there, as in Swarm.

Counted from the failed tasks that the history keeps, so that a new leader knows as much.
"""

from __future__ import annotations

from collections import Counter

from pyswarm_common.model import Service
from pyswarm_manager.planner.ledger import Ledger

MAX_FAILURES = 5
WITHIN_S = 300.0


def failing_nodes(ledger: Ledger, service: Service, now: float) -> dict[str, int]:
    """Nodes with too many failures of the present spec in the last minutes, and how many."""
    failures = ledger.failures.get(service.id)
    if failures is None:
        return {}
    counts = Counter(
        node_id
        for node_id, ended_at, version in failures.values()
        # A time ahead was written by a leader whose clock was wrong; it counts until it is as far behind.
        if version == service.spec_version and abs(now - ended_at) < WITHIN_S
    )
    return {node_id: count for node_id, count in counts.items() if count >= MAX_FAILURES}
