"""A cluster of machines in virtual time: what `managers.count` and `ca.roles` decide is carried out as Raft would."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import (
    Cluster,
    ClusterSpec,
    ManagerStatus,
    Node,
    NodeDescription,
    NodeRole,
    NodeSpec,
    NodeState,
    NodeStatus,
)
from pyswarm_manager.ca.roles import BecomeWorker, RemoveMember, next_steps
from pyswarm_manager.managers.count import Change, Demote, History, Promote, Timing, next_manager_change
from pyswarm_manager.managers.quorum import check_demotion, check_step
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.raft.ports import MemberStatus
from pyswarm_manager.store.tables import Tables

GRACE_S = 30.0
TIMING = Timing()


def machine(number: int, zone: str = "", role: NodeRole = NodeRole.WORKER, **changes: object) -> Node:
    """A node that is up; a manager's raft id is its number."""
    node = Node(
        id=f"n{number}",
        spec=NodeSpec(role=role, labels={"zone": zone} if zone else {}),
        description=NodeDescription(hostname=f"n{number}", engine_version="1"),
        status=NodeStatus(state=NodeState.READY, changed_at=float(number)),
        role=role,
        manager_status=ManagerStatus(raft_id=number) if role is NodeRole.MANAGER else None,
    )
    return replace(node, **changes)


def view_of(nodes: list[Node], wanted: int, grace_s: float = GRACE_S) -> Tables:
    view = Tables()
    view.put(Cluster(id="c", spec=ClusterSpec(managers=wanted, dead_manager_grace_s=grace_s)))
    for node in nodes:
        view.put(node)
    return view


@dataclass
class World:
    """Machines live and die; the leader is the lowest live voter, and there is none without a majority."""

    nodes: list[Node]
    wanted: int
    view: Tables = field(init=False)
    alive: set[str] = field(init=False)
    broken: set[str] = field(default_factory=set)
    """Machines whose manager never starts."""
    members: dict[int, MemberRole] = field(init=False)
    removed: set[int] = field(default_factory=set)
    now: float = 0.0
    history: History | None = None
    leader: int = 0
    changes: list[Change] = field(default_factory=list)
    next_raft_id: int = 1000

    def __post_init__(self) -> None:
        self.view = view_of(self.nodes, self.wanted)
        self.alive = {node.id for node in self.nodes}
        voters = [node for node in self.nodes if node.manager_status is not None]
        self.members = {node.manager_status.raft_id: MemberRole.VOTER for node in voters if node.manager_status}
        self._elect()

    # ---- what befalls the machines

    def kill(self, node_id: str) -> None:
        self.alive.discard(node_id)
        self._elect()

    def revive(self, node_id: str) -> None:
        self.alive.add(node_id)
        self._elect()

    def ask_for(self, node_id: str, role: NodeRole) -> None:
        """A user promotes or demotes; what would cost the majority is refused, as the API does."""
        node = self.view.nodes[node_id]
        if not self.leader or node.spec.role is role:
            return
        if role is NodeRole.WORKER:
            try:
                check_demotion(self.view, self.statuses(), node)
            except FailedPrecondition:
                return
        self.view.put(replace(node, spec=replace(node.spec, role=role)))

    # ---- what is the case

    def _node_of(self, raft_id: int) -> Node | None:
        found = [n for n in self.view.nodes.values() if n.manager_status and n.manager_status.raft_id == raft_id]
        return found[0] if found else None

    def _is_up(self, raft_id: int) -> bool:
        node = self._node_of(raft_id)
        return node is not None and node.id in self.alive and node.id not in self.broken

    def voters(self) -> list[int]:
        return [raft_id for raft_id, role in sorted(self.members.items()) if role is MemberRole.VOTER]

    def has_quorum(self) -> bool:
        voters = self.voters()
        return sum(self._is_up(voter) for voter in voters) >= len(voters) // 2 + 1

    def _elect(self) -> None:
        up = [voter for voter in self.voters() if self._is_up(voter)]
        leader = self.leader if self.leader in up else (up[0] if up else 0)
        if not self.has_quorum():
            leader = 0
        if leader != self.leader:
            self.leader = leader
            self.history = History(quiet_since=self.now) if leader else None

    def statuses(self) -> dict[int, MemberStatus]:
        """As the leader sees them."""
        return {
            raft_id: MemberStatus("", role, raft_id == self.leader, self._is_up(raft_id), int(self._is_up(raft_id)))
            for raft_id, role in self.members.items()
        }

    def standing(self) -> list[Node]:
        """Live managers that vote."""
        nodes = [self._node_of(voter) for voter in self.voters() if self._is_up(voter)]
        return [node for node in nodes if node is not None and node.spec.role is NodeRole.MANAGER]

    # ---- what the cluster does

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.second()

    def second(self) -> None:
        """Sessions, managers that start, the roles loop, then the keeper: each as far as it gets in a second."""
        self.now += 1.0
        self._elect()
        if not self.leader:
            return
        self._observe_sessions()
        self._start_managers()
        self._carry_out_roles()
        self._elect()
        if self.leader:
            self._keep()

    def _observe_sessions(self) -> None:
        for node in list(self.view.nodes.values()):
            state = NodeState.READY if node.id in self.alive else NodeState.DOWN
            if node.status.state is not state:
                self.view.put(replace(node, status=NodeStatus(state=state, changed_at=self.now)))

    def _start_managers(self) -> None:
        """Promoted nodes get their certificate, join as learners, and are voters a second later."""
        for raft_id, role in list(self.members.items()):
            if role is MemberRole.LEARNER and self._is_up(raft_id):
                self._change_members({**self.members, raft_id: MemberRole.VOTER})
        for node in list(self.view.nodes.values()):
            is_new = node.spec.role is NodeRole.MANAGER and (
                node.manager_status is None or node.manager_status.raft_id not in self.members
            )
            if is_new and node.id in self.alive and node.id not in self.broken:
                self.next_raft_id += 1
                status = ManagerStatus(raft_id=self.next_raft_id)
                self.view.put(replace(node, role=NodeRole.MANAGER, manager_status=status))
                self.members = {**self.members, self.next_raft_id: MemberRole.LEARNER}

    def _carry_out_roles(self) -> None:
        for step in next_steps(self.view, self.statuses()):
            match step:
                case BecomeWorker(node):
                    self.view.put(replace(node, role=NodeRole.WORKER, manager_status=None))
                case RemoveMember(raft_id):
                    try:
                        check_step(self.view, self.statuses(), raft_id)
                    except FailedPrecondition:
                        continue
                    if raft_id == self.leader:
                        self._hand_over()
                        return
                    self._change_members({i: r for i, r in self.members.items() if i != raft_id})
                    self.removed.add(raft_id)
                    return

    def _hand_over(self) -> None:
        others = [voter for voter in self.voters() if voter != self.leader and self._is_up(voter)]
        assert others, "a leader was to leave, and nobody could follow it"
        self.leader, self.history = others[0], History(quiet_since=self.now)

    def _change_members(self, members: dict[int, MemberRole]) -> None:
        """The heart of it: no change of ours may cost a majority that was there."""
        before = self.has_quorum()
        self.members = members
        assert not before or self.has_quorum(), f"the majority was lost by {self.changes[-1:]} at {self.now}"

    def _keep(self) -> None:
        assert self.history is not None
        self.history = self.history.observed(self.view, self.statuses(), self.now)
        change = next_manager_change(self.view, self.statuses(), self.history, self.now, TIMING)
        if change is None:
            return
        self.changes.append(change)
        node = self.view.nodes[change.node_id]
        match change:
            case Promote():
                assert node.spec.role is NodeRole.WORKER
                role = NodeRole.MANAGER
            case Demote():
                check_demotion(self.view, self.statuses(), node)
                role = NodeRole.WORKER
                if node.id in self.history.joining_since:
                    self.history = self.history.given_up(node.id, self.now, TIMING)
        self.view.put(replace(node, spec=replace(node.spec, role=role)))
