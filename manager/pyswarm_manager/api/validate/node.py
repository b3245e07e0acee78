"""What a user may say about a node."""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.model import Availability, NodeSpec
from pyswarm_manager.api.validate.fields import Violation, check_labels
from pyswarm_manager.api.validate.placement import check_taints

_LONGEST_DRAIN_S = 365 * 24 * 3600.0


def check_node_spec(spec: NodeSpec) -> Iterator[Violation]:
    """Role and availability are enumerations, and right once they are decoded."""
    yield from check_labels(spec.labels)
    yield from check_taints(spec.taints)
    if not 0.0 <= spec.drain_deadline_s <= _LONGEST_DRAIN_S:
        yield "drain_deadline_s", "the deadline of a drain is 0 (none) to 365 days"
    elif spec.drain_deadline_s and spec.availability is not Availability.DRAIN:
        yield "drain_deadline_s", "only a node that is drained has a deadline"
