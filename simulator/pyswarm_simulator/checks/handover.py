"""Nothing is stopped while some node may still open connections to it: looked at when a container is told to stop.

That is: when a task is stopped because the cluster said so, no node's programmed table names it as a backend. Excused
are nodes that were down at some time since the task was given up (nobody could tell them, and the cluster had to go
on), and tasks whose service was removed (there is nothing left to connect to).
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_common.model import Node, NodeState, Service, Task, TaskState
from pyswarm_manager.store.changes import Event
from pyswarm_overlay.types import NetworkTable
from pyswarm_simulator.checks.violation import Violation

Programmed = tuple[str, str, Iterable[NetworkTable]]
"""A host's name, its node's id, and the tables in its kernel by which something there may open connections."""


class HandoverChecks:
    """When tasks were given up and nodes were lost, by index."""

    def __init__(self) -> None:
        self._given_up: dict[str, int] = {}
        self._tasks: dict[str, Task] = {}
        self._services: set[str] = set()
        self._lost: dict[str, int] = {}
        """Node id -> the last index at which it was not taking part."""
        self._nodes: dict[str, Node] = {}

    def changed(self, index: int, events: tuple[Event, ...]) -> None:
        """What an index did."""
        for event in events:
            match event.object:
                case Task() as task:
                    self._task(index, task, is_there=event.new is not None)
                case Service() as service:
                    (self._services.add if event.new is not None else self._services.discard)(service.id)
                case Node() as node:
                    self._node(index, node, is_there=event.new is not None)
                case _:
                    pass

    def check_stop(self, task_id: str, hosts: Iterable[Programmed]) -> None:
        """A container of the task is told to stop; `hosts` are those that have power."""
        task = self._tasks.get(task_id)
        if task is None or task.id not in self._given_up or task.service_id not in self._services:
            return
        if task.status.state is not TaskState.RUNNING or task.node_id not in self._nodes:
            return
        for name, node_id, tables in hosts:
            if not self._takes_part(node_id, since=self._given_up[task.id]):
                continue
            for table in tables:
                if any(record.endpoint_id == task.id and record.ready for record in table.endpoints):
                    raise Violation(f"handover: task {task.id} is stopped, and {name} still sends it connections")

    def _takes_part(self, node_id: str, since: int) -> bool:
        """Whether the node could be told since that index."""
        return node_id in self._nodes and not _is_lost(self._nodes[node_id]) and self._lost.get(node_id, 0) < since

    def _task(self, index: int, task: Task, *, is_there: bool) -> None:
        if not is_there:
            self._tasks.pop(task.id, None)
            self._given_up.pop(task.id, None)
            return
        self._tasks[task.id] = task
        if task.desired_state >= TaskState.SHUTDOWN:
            self._given_up.setdefault(task.id, index)

    def _node(self, index: int, node: Node, *, is_there: bool) -> None:
        before = self._nodes.pop(node.id, None)
        if is_there:
            self._nodes[node.id] = node
        if not is_there or _is_lost(node) or (before is not None and _is_lost(before)):
            self._lost[node.id] = index  # one that returns was lost until now


def _is_lost(node: Node) -> bool:
    return node.status.state in (NodeState.DOWN, NodeState.UNKNOWN)
