"""What a user may say about a node."""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.model import NodeSpec
from pyswarm_manager.api.validate.fields import Violation, check_labels


def check_node_spec(spec: NodeSpec) -> Iterator[Violation]:
    """Role and availability are enumerations, and right once they are decoded."""
    return check_labels(spec.labels)
