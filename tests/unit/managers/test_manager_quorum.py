"""What may be taken away from the managers, and how a refusal is worded."""

from __future__ import annotations

import pytest
from manager_world import machine, view_of
from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import Node, NodeRole
from pyswarm_manager.managers.quorum import check_demotion, check_step, is_heard, leaving, rest_without
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.raft.ports import MemberStatus
from pyswarm_manager.store.tables import Tables

M = NodeRole.MANAGER


def members(*raft_ids: int, silent: tuple[int, ...] = (), learners: tuple[int, ...] = ()) -> dict[int, MemberStatus]:
    return {
        i: MemberStatus(
            "",
            MemberRole.LEARNER if i in learners else MemberRole.VOTER,
            i == 1,
            i not in silent,
            0 if i in silent else 7,
        )
        for i in raft_ids
    }


def managers(*numbers: int, leaving: tuple[int, ...] = ()) -> Tables:
    nodes = [machine(i, role=M) for i in numbers]
    return view_of([replace(n, spec=machine(0).spec) if int(n.id[1:]) in leaving else n for n in nodes], 0)


def node(view: Tables, number: int) -> Node:
    return view.nodes[f"n{number}"]


@pytest.mark.parametrize(
    ("count", "silent", "gone", "is_safe"),
    [
        (1, (), {1}, False),
        (2, (), {2}, True),
        (2, (2,), {2}, True),
        (3, (), {3}, True),
        (3, (3,), {3}, True),
        (3, (3,), {2}, False),
        (4, (4,), {2}, True),
        (5, (4, 5), {2}, False),
        (5, (4, 5), {5}, True),
        (5, (), {2, 3, 4}, True),
    ],
)
def test_who_can_be_spared(count: int, silent: tuple[int, ...], gone: set[int], is_safe: bool) -> None:
    assert rest_without(members(*range(1, count + 1), silent=silent), gone).is_safe is is_safe


def test_learners_neither_help_nor_cost() -> None:
    assert rest_without(members(1, 2, 3, learners=(3,)), {2}).voters == 1
    view = managers(1, 2, 3)
    check_demotion(view, members(1, 2, 3, silent=(2,), learners=(3,)), node(view, 3))


def test_a_member_that_was_not_heard_in_this_term_is_not_heard() -> None:
    """A new leader gives everybody an election timeout before it calls them silent."""
    assert not is_heard(MemberStatus("", MemberRole.VOTER, is_active=True, match_index=0))


def test_a_refusal_has_numbers_and_says_what_to_do() -> None:
    view = managers(1, 2, 3)
    with pytest.raises(FailedPrecondition) as refused:
        check_demotion(view, members(1, 2, 3, silent=(3,)), node(view, 2))
    assert str(refused.value) == (
        "demoting n2 would leave 1 of 2 managers reachable, and 2 must be, or the swarm cannot be changed any more "
        "(loss of quorum): start n3 first, or use --force"
    )
    check_demotion(view, members(1, 2, 3, silent=(3,)), node(view, 2), force=True)
    check_demotion(view, members(1, 2, 3, silent=(3,)), node(view, 3))


def test_a_committed_demotion_counts_as_done() -> None:
    """Four managers of which one is silent can spare one more, but not two."""
    all_four = members(1, 2, 3, 4, silent=(4,))
    view = managers(1, 2, 3, 4)
    check_demotion(view, all_four, node(view, 2))
    view = managers(1, 2, 3, 4, leaving=(2,))
    with pytest.raises(FailedPrecondition, match=r"1 of 2 managers reachable \(n2 being demoted already\)"):
        check_demotion(view, all_four, node(view, 3))


@pytest.mark.parametrize("force", [False, True])
def test_the_last_manager_stays_whatever_is_said(force: bool) -> None:
    view = managers(1)
    with pytest.raises(FailedPrecondition, match="attempting to demote the last manager of the swarm"):
        check_demotion(view, members(1), node(view, 1), force=force)
    both_going = managers(1, 2, leaving=(2,))
    with pytest.raises(FailedPrecondition, match="the last manager"):
        check_demotion(both_going, members(1, 2), node(both_going, 1), force=force)
    view = managers(1, 2)
    with pytest.raises(FailedPrecondition, match="last manager of the swarm: n2 does not vote yet"):
        check_demotion(view, members(1, 2, learners=(2,)), node(view, 1), force=force)


def test_a_step_is_held_back_as_long_as_it_would_cost_the_majority() -> None:
    view = managers(1, 2, 3, leaving=(2,))
    with pytest.raises(FailedPrecondition, match="removing n2 from the managers would leave 1 of 2"):
        check_step(view, members(1, 2, 3, silent=(3,)), 2)
    check_step(view, members(1, 2, 3), 2)
    check_step(view, members(1, 2, 3, silent=(3,)), 2, force=True)
    check_step(view, members(1, 2, 3, silent=(3,), learners=(2,)), 2)
    with pytest.raises(FailedPrecondition):
        check_step(view, members(2), 2, force=True)


def test_who_is_leaving() -> None:
    assert leaving(managers(1, 2, 3, leaving=(2,)), members(1, 2, 3)) == {2}
    assert leaving(managers(1, 2), members(1, 2, 3)) == {3}  # its node was removed
    view = managers(1, 2, 3, leaving=(2,))
    view.put(replace(machine(4, role=M), manager_status=None))
    assert leaving(view, members(1, 2, 3, 9)) == {2}  # the unclaimed one may be n4's
