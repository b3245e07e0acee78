"""Whether the managers can spare one: who would remain, and whether a majority of those is up.

Pure, and decided in one place, on the leader: it alone hears the others. What is committed counts, not what is done: a
manager whose demotion is committed is gone, though it still votes. Learners do not vote, so they neither help nor cost.
Who acts next: the callers refuse, or commit the change; `ca.roles` carries it out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import Node, NodeRole
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.raft.ports import MemberStatus
from pyswarm_manager.store.tables import Tables

LAST_MANAGER = "attempting to demote the last manager of the swarm"
Members = Mapping[int, MemberStatus]


@dataclass(frozen=True, slots=True)
class Rest:
    """The voters that would remain."""

    voters: int
    reachable: int
    silent: tuple[int, ...]
    """Raft ids of those that do not answer."""

    @property
    def majority(self) -> int:
        return self.voters // 2 + 1

    @property
    def is_safe(self) -> bool:
        return self.voters > 0 and self.reachable >= self.majority


def is_heard(member: MemberStatus) -> bool:
    """Whether the leader hears of it, and has in this term: a new leader gives everybody time before it calls them
    silent, and what matches of a log is only known from an answer."""
    return member.is_active and member.match_index > 0


def rest_without(members: Members, gone: Collection[int]) -> Rest:
    """What would remain of the voters."""
    rest = {i: m for i, m in sorted(members.items()) if m.role is MemberRole.VOTER and i not in gone}
    silent = tuple(raft_id for raft_id, member in rest.items() if not is_heard(member))
    return Rest(len(rest), len(rest) - len(silent), silent)


def leaving(view: Tables, members: Members) -> frozenset[int]:
    """Members that are to leave: demoted ones that still take part, and those whose node was removed."""
    wanted = [node for node in view.nodes.values() if node.spec.role is NodeRole.MANAGER]
    claimed = {node.manager_status.raft_id for node in wanted if node.manager_status is not None}
    if any(node.manager_status is None for node in wanted):
        # One of the members that nobody claims may be this manager's, which has not said so yet.
        claimed |= set(members) - _claimed_by_workers(view)
    return frozenset(members) - claimed


def _claimed_by_workers(view: Tables) -> set[int]:
    return {
        node.manager_status.raft_id
        for node in view.nodes.values()
        if node.spec.role is NodeRole.WORKER and node.manager_status is not None
    }


def check_demotion(view: Tables, members: Members, node: Node, *, force: bool = False) -> None:
    """Refuse to demote the node where the managers that stay could decide nothing; the last one always stays."""
    others = [n for n in view.nodes.values() if n.spec.role is NodeRole.MANAGER and n.id != node.id]
    if not others:
        raise FailedPrecondition(LAST_MANAGER)
    status = node.manager_status
    if status is None or not _votes(members, status.raft_id):
        return
    going = leaving(view, members)
    rest = rest_without(members, going | {status.raft_id})
    if rest.voters == 0:
        names = ", ".join(sorted(_name(other) for other in others))
        raise FailedPrecondition(f"{LAST_MANAGER}: {names} does not vote yet, try again when it does")
    if not rest.is_safe and not force:
        raise FailedPrecondition(refusal(f"demoting {_name(node)}", rest, view, going - {status.raft_id}))


def check_step(view: Tables, members: Members, raft_id: int, *, force: bool = False) -> None:
    """Refuse to take the member out of Raft now, although that is wanted: the others must be able to decide."""
    if not _votes(members, raft_id):
        return
    rest = rest_without(members, {raft_id})
    if rest.voters == 0 or (not rest.is_safe and not force):
        raise FailedPrecondition(refusal(f"removing {name_of(view, raft_id)} from the managers", rest, view))


def refusal(what: str, rest: Rest, view: Tables, going: Collection[int] = ()) -> str:
    """Why not, in numbers, and what to do."""
    silent = ", ".join(name_of(view, raft_id) for raft_id in rest.silent)
    already = f" ({', '.join(name_of(view, i) for i in sorted(going))} being demoted already)" if going else ""
    advice = f"start {silent} first" if silent else "add a manager first"
    return (
        f"{what} would leave {rest.reachable} of {rest.voters} managers reachable{already}, "
        f"and {rest.majority} must be, or the swarm cannot be changed any more (loss of quorum): "
        f"{advice}, or use --force"
    )


def name_of(view: Tables, raft_id: int) -> str:
    """What people call the manager."""
    for node in view.nodes.values():
        if node.manager_status is not None and node.manager_status.raft_id == raft_id:
            return _name(node)
    return f"member {raft_id:x}"


def _votes(members: Members, raft_id: int) -> bool:
    member = members.get(raft_id)
    return member is not None and member.role is MemberRole.VOTER


def _name(node: Node) -> str:
    return node.description.hostname or node.id
