"""A machine whose data path has another family than those of all nodes is told so before it joins."""

from __future__ import annotations

import pytest

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import Node, NodeDescription, NodeState, NodeStatus
from pyswarm_manager.ca.data_path import require_common_family


def node(address: str, state: NodeState = NodeState.READY, path: str = "") -> Node:
    return Node(
        id=f"n{address}",
        description=NodeDescription(hostname="host1", data_path_address=path),
        status=NodeStatus(state=state, address=address),
    )


def test_the_only_family_of_the_others_is_named_with_one_of_them() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        require_common_family("192.0.2.9", [node("fd00::1"), node("192.0.2.1", path="fd00::2")])
    assert "192.0.2.9 is IPv4" in str(refused.value)
    assert "over IPv6 (host1 at fd00::2)" in str(refused.value)
    assert "--data-path-addr" in str(refused.value)


@pytest.mark.parametrize(
    "others",
    [
        [],
        [node("192.0.2.1")],
        [node("fd00::1"), node("192.0.2.1")],
        [node("fd00::1", NodeState.DOWN)],
        [node("")],
    ],
    ids=["first", "same", "mixed", "down", "unknown"],
)
def test_who_shares_a_family_with_somebody_or_is_alone_may_join(others: list[Node]) -> None:
    require_common_family("192.0.2.9", others)
