"""What is refused of a node's drain and of the time after which a lost node's tasks are given up."""

from __future__ import annotations

import math

import pytest

from pyswarm_common.model import Availability, ClusterSpec, NodeSpec
from pyswarm_manager.api.validate import check_cluster_spec, check_node_spec

DRAIN, ACTIVE = Availability.DRAIN, Availability.ACTIVE


@pytest.mark.parametrize(
    ("availability", "deadline_s", "is_right"),
    [
        (DRAIN, 0.0, True),
        (DRAIN, 600.0, True),
        (ACTIVE, 600.0, False),
        (DRAIN, -1.0, False),
        (DRAIN, math.nan, False),
        (DRAIN, math.inf, False),
    ],
)
def test_the_deadline_of_a_drain(availability: Availability, deadline_s: float, is_right: bool) -> None:
    found = [field for field, _ in check_node_spec(NodeSpec(availability=availability, drain_deadline_s=deadline_s))]
    assert found == ([] if is_right else ["drain_deadline_s"])


@pytest.mark.parametrize(
    ("seconds", "is_right"), [(0.0, True), (60.0, True), (0.5, False), (-5.0, False), (math.nan, False), (1e9, False)]
)
def test_when_tasks_of_a_lost_node_are_given_up(seconds: float, is_right: bool) -> None:
    found = [field for field, _ in check_cluster_spec(ClusterSpec(orphan_after_s=seconds))]
    assert found == ([] if is_right else ["orphan_after_s"])
