"""Until when each node must be heard of: (heartbeats, now) -> the nodes that are lost.

A node is heard of by any message of its session, and is lost after three periods of silence. A session that breaks
leaves a time of its own, in which a restarting agent comes back without losing its tasks. A leader that stood still
(a busy or suspended host) heard nobody in that time, so it counts against nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

GRACE_PERIODS = 3
NODES_PER_SECOND = 500
"""Heartbeats that a leader takes per second; beyond them the period grows."""
SUSPECT_GRACE_S = 4.0
"""For an agent that restarts. Long enough for a daemon to load on a busy host, short enough to be a fast failover."""
RECONNECT_GRACE_S = 10.0
"""For nodes to find a new leader, and for a new node to open its first session. Longer than an agent needs to notice,
by its channel's keepalive (8 s), that the old leader fell silent: or a leader's end would cost workers their tasks."""
CHECK_INTERVAL_S = 0.25
_LATE_S = 0.5


def heartbeat_period_s(configured_s: float, node_count: int) -> float:
    """How often each node is to be heard, in a cluster of this size."""
    return max(configured_s, node_count / NODES_PER_SECOND)


class Heartbeats:
    """Deadlines by node. Whoever is not in it is not expected."""

    def __init__(self, now: float, period_s: float) -> None:
        self._deadlines: dict[str, float] = {}
        self._checked_at = now
        self.period_s = period_s

    def heard(self, node_id: str, now: float) -> None:
        """The node's session is alive."""
        self._deadlines[node_id] = now + GRACE_PERIODS * self.period_s

    def suspect(self, node_id: str, now: float) -> None:
        """The node's session broke."""
        self._deadlines[node_id] = now + SUSPECT_GRACE_S

    def expect(self, node_ids: Iterable[str], now: float) -> None:
        """These may take a while to open a session."""
        deadline = now + max(RECONNECT_GRACE_S, GRACE_PERIODS * self.period_s)
        self._deadlines.update(dict.fromkeys(node_ids, deadline))

    def expect_by(self, node_ids: Iterable[str], deadline: float) -> None:
        """These have no longer than that, if they are expected at all."""
        for node_id in node_ids:
            if node_id in self._deadlines:
                self._deadlines[node_id] = min(self._deadlines[node_id], deadline)

    def forget(self, node_id: str) -> None:
        """The node is gone from the cluster."""
        self._deadlines.pop(node_id, None)

    def expired(self, now: float) -> list[str]:
        """The nodes whose time is over; they are forgotten. To be called every CHECK_INTERVAL_S."""
        late_s = now - self._checked_at - CHECK_INTERVAL_S
        self._checked_at = now
        if late_s > _LATE_S:
            self._deadlines = {node_id: deadline + late_s for node_id, deadline in self._deadlines.items()}
        lost = [node_id for node_id, deadline in self._deadlines.items() if deadline <= now]
        for node_id in lost:
            del self._deadlines[node_id]
        return lost
