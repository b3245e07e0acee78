"""What follows from the node's object and its certificate: promotion, demotion, renewal."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pyswarm_common.model import ManagerStatus, Node, NodeRole, NodeSpec
from pyswarm_manager.api.validate.cluster import MIN_CERT_EXPIRY_S
from pyswarm_node import roles
from pyswarm_node.roles import Step, next_step, renewal_time

W, M = NodeRole.WORKER, NodeRole.MANAGER


def node(wanted: NodeRole, is_now: NodeRole) -> Node:
    member = ManagerStatus(raft_id=1) if is_now is M else None
    return Node(id="n" * 25, spec=NodeSpec(role=wanted), role=is_now, manager_status=member)


@pytest.mark.parametrize(
    ("wanted", "is_now", "certificate", "set_up", "expected"),
    [
        (W, W, W, False, Step.NOTHING),
        (M, M, M, True, Step.NOTHING),
        (M, W, W, False, Step.PROMOTE),
        (M, M, M, False, Step.START_MANAGER),
        (M, W, M, False, Step.PROMOTE),  # demoted and promoted again: its certificate is from before
        (M, W, M, True, Step.INTRODUCE),  # and so is its manager
        (W, M, M, True, Step.NOTHING),  # the leader has not yet taken it out of Raft
        (W, W, M, True, Step.DEMOTE),
        (W, W, M, False, Step.DEMOTE),  # stopped, but the certificate is still a manager's
        (W, W, W, True, Step.DEMOTE),
    ],
)
def test_next_step(wanted: NodeRole, is_now: NodeRole, certificate: NodeRole, set_up: bool, expected: Step) -> None:
    step = next_step(node(wanted, is_now), certificate, is_manager_set_up=set_up, renew_at=100.0, now=0.0)
    assert step is expected


def test_a_manager_that_is_no_member_yet_is_told_where_the_others_are() -> None:
    joining = replace(node(M, M), manager_status=None)
    assert next_step(joining, M, is_manager_set_up=True, renew_at=100.0, now=0.0) is Step.INTRODUCE


def test_the_shortest_life_that_a_certificate_may_have_is_renewed_in_time() -> None:
    seen_at = renewal_time(0.0, MIN_CERT_EXPIRY_S, 1.0) + roles._LOOK_AGAIN_S
    assert seen_at < MIN_CERT_EXPIRY_S - 300.0  # a few minutes are left to retry


def test_renewal_needs_only_the_clock() -> None:
    assert next_step(None, W, is_manager_set_up=False, renew_at=100.0, now=100.0) is Step.RENEW
    assert next_step(None, W, is_manager_set_up=False, renew_at=100.0, now=99.0) is Step.NOTHING
    assert renewal_time(0.0, 100.0, 0.0) == 50.0
    assert renewal_time(0.0, 100.0, 1.0) == pytest.approx(80.0)
