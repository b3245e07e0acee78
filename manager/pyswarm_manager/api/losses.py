"""Losing nodes: which they are, what it does to the managers' majority, and which services have nothing running then.

Pure. The loss itself is imagined as the dispatcher would tell of it: the nodes are DOWN, all at once. Who acts next:
`planner.foresight` lets the planner answer it, and `api.plans` tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from pyswarm_common.errors import InvalidArgument, NotFound
from pyswarm_common.model import Node, NodeState, Service, ServiceMode, Task, TaskState
from pyswarm_manager.managers.quorum import Members, Rest, rest_without
from pyswarm_manager.raft.core.types import MemberRole
from pyswarm_manager.store.changes import Change, SetNodeStatus
from pyswarm_manager.store.lookup import find_node
from pyswarm_manager.store.tables import Tables


@dataclass(frozen=True, slots=True)
class Quorum:
    """What is left of the managers that decide."""

    voters: int
    lost: int
    reachable: int
    majority: int
    loses_leader: bool

    @property
    def holds(self) -> bool:
        """A lost manager stays a member: the majority is of all, and those that stay must make it up."""
        return self.reachable >= self.majority


def lost_nodes(tables: Tables, names: Sequence[str], labels: Sequence[str]) -> list[Node]:
    """The nodes meant. Raises NotFound and InvalidArgument."""
    found = {node.id: node for node in (find_node(tables, name) for name in names)}
    for label in labels:
        key, equals, value = label.partition("=")
        if not key or not equals:
            raise InvalidArgument(f'invalid label "{label}": write KEY=VALUE')
        labelled = [node for node in tables.nodes.values() if _has(node, key, value)]
        if not labelled:
            raise NotFound(f"no node has the label {label}: see `pyswarm node inspect`")
        found.update((node.id, node) for node in labelled)
    if not found:
        raise InvalidArgument("which nodes are lost? give --node or --label")
    return list(found.values())


def loss_of(nodes: Iterable[Node], now: float) -> list[Change]:
    """As the dispatcher writes it."""
    return [
        SetNodeStatus(node.id, replace(node.status, state=NodeState.DOWN, message="lost", changed_at=now))
        for node in nodes
        if node.status.state is not NodeState.DOWN
    ]


def quorum_without(members: Members, nodes: Iterable[Node], leader_id: int | None) -> Quorum:
    """Learners do not vote: they neither help nor cost."""
    ids = {node.manager_status.raft_id for node in nodes if node.manager_status is not None}
    voters = [raft_id for raft_id, member in members.items() if member.role is MemberRole.VOTER]
    rest: Rest = rest_without(members, ids)
    lost = sum(raft_id in ids for raft_id in voters)
    return Quorum(len(voters), lost, rest.reachable, len(voters) // 2 + 1, leader_id in ids)


def without_running(tables: Tables, lost: Collection[str]) -> list[Service]:
    """Services that have a running task now, and none beside those on the lost nodes."""
    found = []
    affected = dict.fromkeys(task.service_id for node_id in lost for task in tables.tasks_on(node_id) if _runs(task))
    for service_id in affected:
        service = tables.services.get(service_id)
        if service is None or service.spec.mode is ServiceMode.CRON:
            continue
        if not any(_runs(task) and task.node_id not in lost for task in tables.service_tasks(service_id)):
            found.append(service)
    return found


def has_running(tables: Tables, service: Service) -> bool:
    """Whether one of its tasks runs on a node that is up."""
    for task in tables.service_tasks(service.id):
        node = tables.nodes.get(task.node_id)
        if node is not None and node.status.state is not NodeState.DOWN and _runs(task):
            return True
    return False


def running_on(tables: Tables, node_id: str) -> int:
    return sum(_runs(task) for task in tables.tasks_on(node_id))


def _runs(task: Task) -> bool:
    return task.desired_state <= TaskState.RUNNING and task.status.state is TaskState.RUNNING


def _has(node: Node, key: str, value: str) -> bool:
    return node.spec.labels.get(key) == value or node.description.engine_labels.get(key) == value
