"""How many replicas of a replicated service are wanted now."""

from __future__ import annotations

from pyswarm_common.model import Service

DEFAULT_REPLICAS = 1


def wanted_replicas(service: Service) -> int:
    """None while it is stopped: its number is kept, and comes back when it is started."""
    spec = service.spec
    if spec.stopped:
        return 0
    return DEFAULT_REPLICAS if spec.replicas is None else spec.replicas
