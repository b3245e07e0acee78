"""Which reports of an agent count, and what a node's session means for its status.

An agent writes the status of its own tasks beyond ASSIGNED, forward only; anything else in a batch is passed over, so
that one bad entry holds up nothing. Never decides what follows from a status: that is the planner.
"""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_common.model import Node, NodeDescription, NodeState, NodeStatus, Task, TaskState, TaskStatus
from pyswarm_manager.store.changes import SetNodeStatus

TEXT_LIMIT = 1024
"""Characters of a message or error that are kept."""


def accepted_status(task: Task | None, node_id: str, status: TaskStatus) -> TaskStatus | None:
    """The status to store, or None if the report does not count."""
    if task is None or task.node_id != node_id or task.status.state.is_terminal:
        return None
    if not TaskState.ACCEPTED <= status.state <= TaskState.REJECTED:
        return None
    if status.state < task.status.state or status == task.status:
        return None
    if len(status.message) > TEXT_LIMIT or len(status.err) > TEXT_LIMIT:
        return replace(status, message=status.message[:TEXT_LIMIT], err=status.err[:TEXT_LIMIT])
    return status


def opened(node: Node, description: NodeDescription, address: str, now: float) -> SetNodeStatus | None:
    """The node opened a session; None if nothing about it changes."""
    is_known = node.description == description
    if is_known and node.status.state is NodeState.READY and node.status.address == address:
        return None
    status = NodeStatus(state=NodeState.READY, address=address, changed_at=_changed_at(node, NodeState.READY, now))
    return SetNodeStatus(node.id, status, None if is_known else description)


def broken(node: Node, now: float) -> SetNodeStatus | None:
    """The node's session broke."""
    if node.status.state is not NodeState.READY:
        return None
    message = "the session broke: the node has a moment to come back"
    return SetNodeStatus(node.id, _status(node, NodeState.SUSPECT, message, now))


def lost(node: Node, now: float) -> SetNodeStatus | None:
    """The node's time to be heard is over."""
    if node.status.state is NodeState.DOWN:
        return None
    return SetNodeStatus(node.id, _status(node, NodeState.DOWN, "heartbeat failure", now))


def _status(node: Node, state: NodeState, message: str, now: float) -> NodeStatus:
    return replace(node.status, state=state, message=message, changed_at=now)


def _changed_at(node: Node, state: NodeState, now: float) -> float:
    return node.status.changed_at if node.status.state is state else now
