"""A cluster with load balancers: planner, the dispatcher's tables and sessions, and nodes that act when they please.

Every node has a queue of messages that it has not acted on. When it acts on one, its kernel gets the tables, which it
acknowledges, and then its tasks hear what is wanted of them. A leader may end at any moment: what was acknowledged,
what was told and what was on its way is then lost, and the next one begins from the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from planner_world import World, next_state

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.model import NodeState, Task, TaskState, TaskStatus
from pyswarm_manager.dispatcher.core.assignments import Given, complete, increment
from pyswarm_manager.dispatcher.core.tables import NetworkTables
from pyswarm_manager.planner.dirty import everything
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.plan import Plan
from pyswarm_manager.store.apply import Applied, Refusal
from pyswarm_manager.store.changes import Change, SetTaskStatus
from pyswarm_manager.store.tables import slot_key
from pyswarm_worker.core.tables import KnownTable


@dataclass
class Host:
    """One node: its kernel's tables, and what its tasks were told. Outlives every leader."""

    tables: dict[str, KnownTable] = field(default_factory=dict)
    wanted: dict[str, TaskState] = field(default_factory=dict)

    def backends(self, network_id: str, service_id: str) -> set[str]:
        """The tasks that new connections from here may go to."""
        table = self.tables.get(network_id)
        records = table.endpoints.values() if table is not None else ()
        return {record.endpoint_id for record in records if record.ready and record.service_id == service_id}


@dataclass
class Session:
    given: Given
    touched: dict[str, None] = field(default_factory=dict)
    inbox: list[pb.Assignments] = field(default_factory=list)


class HandoverWorld(World):
    def __init__(self, seed: int = 0) -> None:
        self.hosts: dict[str, Host] = {}
        self.sessions: dict[str, Session] = {}
        self.told_tables: NetworkTables | None = None
        super().__init__(seed)
        self.lead()

    # ---- the leader

    def lead(self) -> None:
        """Another leader: it knows what is committed, and no more."""
        self.told_tables = NetworkTables(self.tables)
        self.sessions = {}
        self.dirty, self.wakes, self.ledger = everything(), {}, Ledger.of(self.tables)

    def is_told(self, task: Task) -> bool:
        return self.told_tables is not None and self.told_tables.is_told(task)

    def try_apply(self, *changes: Change) -> Applied | Refusal:
        result = super().try_apply(*changes)
        if isinstance(result, Applied) and self.told_tables is not None:
            for event in result.events:
                self.told_tables.apply(event, self.tables.index)
                if isinstance(event.object, Task):
                    self._touch(event.object)
            self._tell_told()
        return result

    def plan(self, *, commit: bool = True) -> Plan:
        found = super().plan(commit=commit)
        assert self.told_tables is not None
        for task in found.awaited:
            if not self.told_tables.is_told(task):
                self.told_tables.watch(task)
        return found

    def _tell_told(self) -> None:
        assert self.told_tables is not None
        for task in self.told_tables.take_told():
            self._touch(task)
            self.dirty.slots[task.service_id, slot_key(task)] = None

    def _touch(self, task: Task) -> None:
        session = self.sessions.get(task.node_id)
        if session is not None:
            session.touched[task.id] = None

    # ---- the nodes

    def tell(self, node_id: str) -> None:
        """The leader has something for the node, and its stream is free. A new session begins with everything."""
        assert self.told_tables is not None
        session = self.sessions.get(node_id)
        if session is None:
            session = self.sessions[node_id] = Session(Given(node_id))
            message = complete(session.given, self.tables, self.told_tables)
        else:
            touched, session.touched = session.touched, {}
            told = increment(session.given, touched, frozenset(), self.tables, self.told_tables)
            if told is None:
                return
            message = told
        session.inbox.append(pb.ManagerMessage.FromString(message).assignments)

    def act(self, node_id: str) -> bool:
        """The node acts on the oldest message: tables first, then tasks."""
        session = self.sessions.get(node_id)
        if session is None or not session.inbox:
            return False
        message = session.inbox.pop(0)
        host = self.hosts.setdefault(node_id, Host())
        for table in message.networks:
            self._program(node_id, host, table)
        for network_id in message.remove_network_ids:
            host.tables.pop(network_id, None)
        if message.type == pb.Assignments.TYPE_COMPLETE:
            host.wanted = {task.id: host.wanted.get(task.id, TaskState.NEW) for task in message.update_tasks}
        for task in message.update_tasks:
            host.wanted[task.id] = max(host.wanted.get(task.id, TaskState.NEW), TaskState(task.desired_state))
        for task_id in message.remove_task_ids:
            host.wanted.pop(task_id, None)
        return True

    def _program(self, node_id: str, host: Host, message: pb.NetworkTable) -> None:
        assert self.told_tables is not None
        if message.complete:
            host.tables[message.network_id] = KnownTable.of(message)
        else:
            assert host.tables[message.network_id].apply(message)
        told = self.sessions[node_id].given.networks.get(message.network_id)
        if told is not None:
            self.told_tables.programmed.acknowledge(node_id, message.network_id, min(message.version, told))
            self._tell_told()

    def step(self, node_id: str) -> bool:
        """Every task of the node goes one state on, as far as the node was told."""
        host = self.hosts.get(node_id)
        if host is None or self.tables.nodes[node_id].status.state is not NodeState.READY:
            return False
        changes = []
        for task in self.tables.tasks_on(node_id):
            wanted = host.wanted.get(task.id)
            state = next_state(msgspec.structs.replace(task, desired_state=wanted)) if wanted is not None else None
            if state is not None:
                changes.append(SetTaskStatus(task.id, TaskStatus(timestamp=self.now, state=state)))
        if changes:
            self.apply(*changes)
        return bool(changes)

    def rest(self) -> None:
        """Until nobody has anything left to do."""
        for _ in range(1000):
            self.plan_all()
            moved = False
            for node_id in tuple(self.tables.nodes):
                self.tell(node_id)
                while self.act(node_id):
                    moved = True
                moved = self.step(node_id) or moved
            if not moved and not self.dirty:
                return
        raise AssertionError("the cluster does not come to rest")
