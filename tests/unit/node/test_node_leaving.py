"""What a manager is told that wants to leave."""

from __future__ import annotations

import pytest

from pyswarm.v1 import operator_pb2 as pb
from pyswarm_node.leaving import why_not


def peer(name: str, *, reachable: bool = True, learner: bool = False, leaving: bool = False) -> pb.RaftPeer:
    role = pb.PEER_ROLE_LEARNER if learner else pb.PEER_ROLE_VOTER
    return pb.RaftPeer(node_id=name, hostname=name, role=role, reachable=reachable, leaving=leaving)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "Removing the last manager erases all current state of the swarm."),
        ([peer("n2", learner=True)], "Removing the last manager"),
        ([peer("n2", leaving=True)], "Removing the last manager"),
        ([peer("n2")], "leaves 1 of 1 managers reachable: demote it first"),
        ([peer("n2"), peer("n3")], "leaves 2 of 2 managers reachable: demote it first"),
        ([peer("n2"), peer("n3", reachable=False)], "leaves 1 of 2 managers reachable, and 2 must be."),
        ([peer("n2"), peer("n3", reachable=False)], "your swarm will be inaccessible: start n3 first."),
    ],
)
def test_a_manager_that_leaves_is_told_what_that_leaves(others: list[pb.RaftPeer], said: str) -> None:
    refusal = why_not([peer("n1"), *others], "n1")
    assert refusal.startswith("You are attempting to leave the swarm on a node that is participating as a manager. ")
    assert said in refusal
    assert "`--force`" in refusal
