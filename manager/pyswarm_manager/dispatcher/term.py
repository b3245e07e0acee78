"""The dispatcher in one term: its sessions, heartbeats and tables, while this manager leads.

Everything here ends with the term. What must outlast it is in the store; the next leader starts from there, gives every
node time to find it, and only then calls one lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm.v1.types_pb2 import NodeDescription as NodeDescriptionMessage
from pyswarm_common.codec import from_proto, to_proto
from pyswarm_common.errors import InvalidArgument, NotFound, PyswarmError, Unavailable
from pyswarm_common.ids import IdSource
from pyswarm_common.model import Cluster, Node, NodeDescription, NodeState, RemovedNode, Service, Task, TaskStatus
from pyswarm_manager.dispatcher.core import reports
from pyswarm_manager.dispatcher.core.descriptions import check_description
from pyswarm_manager.dispatcher.core.heartbeats import (
    CHECK_INTERVAL_S,
    SUSPECT_GRACE_S,
    Heartbeats,
    heartbeat_period_s,
)
from pyswarm_manager.dispatcher.core.tables import NetworkTables
from pyswarm_manager.dispatcher.core.whereabouts import place_of, whereabouts
from pyswarm_manager.dispatcher.holds import Holds
from pyswarm_manager.dispatcher.session import Session
from pyswarm_manager.dispatcher.statistics import StatisticsDesk, UsageSink, ignore
from pyswarm_manager.dispatcher.turns import Turns
from pyswarm_manager.dispatcher.writer import ReportWriter
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.store import Store
from pyswarm_manager.trust import trusted_roots

_log = logging.getLogger(__name__)

HELLO_BYTES_LIMIT = 8192
UPDATES_LIMIT = 4096
"""Statuses in one batch of an agent."""
LOCATIONS_LIMIT = 10
REMOVED_LIMIT = 10_000
"""Removed nodes that an agent is told of: those whose certificates last longest."""
TABLES_INTERVAL_S = 0.01
TABLES_INTERVAL_PER_SESSION_S = 0.0001
"""Changes of tables are pushed at once, then collected for this long: a busy network must not flood its nodes."""
MEMBERS_SETTLE_S = 2.0
"""By then a new leader has heard, in Raft, of every manager that lives."""
_PERIOD_SLACK = 0.2


class Term:
    """Use `run` in the leader's group; sessions are opened by the servicer."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        new_id: IdSource,
        silent_members: Callable[[], frozenset[int]],
        monotonic: Callable[[], float],
        seeds: Callable[[], tuple[str, ...]],
        on_told: Callable[[Iterable[Task]], None] = lambda tasks: None,
        on_usage: UsageSink = ignore,
    ) -> None:
        """`on_told` hears of the watched tasks of which every node that needs it has been told, `on_usage` of what
        tasks use."""
        self._seeds, self._on_told = seeds, on_told
        self._store, self._clock, self._new_id = store, clock, new_id
        self._silent_members, self._monotonic = silent_members, monotonic
        view = store.view
        self.tables = self._tables = NetworkTables(view)
        self._sessions: dict[str, Session] = {}
        self._heartbeats = Heartbeats(self._monotonic(), self._period_s())
        self._managers = whereabouts(view.nodes.values())
        self._roots = b"" if view.cluster is None else trusted_roots(view.cluster)
        self._writer = ReportWriter(store)
        self._turns = Turns()
        self._statistics_desk = StatisticsDesk(view, on_usage)
        self._holds = Holds(view, self._tables, self._writer, self._mark, self._tell_told, clock, monotonic)
        self._tables_changed = asyncio.Event()
        self._withdrawn = asyncio.Event()
        self._pushed_ingress = self._tables.ingress_version
        self._readers: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled."""
        unsubscribe = self._store.subscribe(self._on_commit)
        known = [node.id for node in self._store.view.nodes.values() if node.status.state is not NodeState.DOWN]
        self._heartbeats.expect(known, self._monotonic())
        try:
            async with asyncio.TaskGroup() as group:
                self._readers = group
                group.create_task(self._writer.run())
                group.create_task(self._watch_heartbeats())
                group.create_task(self._hasten_lost_managers())
                group.create_task(self._push_tables())
                group.create_task(self._holds.run())
                try:
                    await asyncio.Event().wait()
                finally:
                    self._readers = None  # a group that is ending takes no more tasks
        finally:
            unsubscribe()

    def end(self, reason: PyswarmError) -> None:
        """End every session."""
        for session in tuple(self._sessions.values()):
            session.end(reason)

    # -- sessions ----------------------------------------------------------------------------------------------------

    def open(self, node_id: str, hello: pb.Hello) -> Session:
        """A new session, which replaces the node's older one."""
        node = self._store.view.nodes.get(node_id)
        if node is None:
            raise NotFound(f"node {node_id} is not part of the swarm any more: leave, then join again")
        _check_size(hello.ByteSize())
        check_description(from_proto(NodeDescription, hello.description), hello.address)
        session = Session(self._new_id(), node_id, self._store.view, self._tables, self._turns)
        older = self._sessions.get(node_id)
        self._sessions[node_id] = session
        if older is not None:
            older.end(Unavailable("a newer session of this node took over"))
        self._heartbeats.heard(node_id, self._monotonic())
        session.address = hello.address
        self._described(session, hello.description)
        self._tell_trust(session)
        if (statistics := self._statistics_desk.wanted()) is not None:
            session.tell_statistics(statistics)
        _log.info("session of node %s opened", node_id)
        return session

    def _described(self, session: Session, message: NodeDescriptionMessage) -> None:
        """What the node says of itself, as its session begins and when that changes."""
        description = from_proto(NodeDescription, message)
        self._writer.observe(
            session.node_id, lambda node: reports.opened(node, description, session.address, self._clock())
        )

    def started(self, session: Session) -> bytes:
        """The first message of the session, serialised."""
        cluster, node = self._store.view.cluster, self._store.view.nodes.get(session.node_id)
        started = pb.SessionStarted(
            session_id=session.id,
            node=None if node is None else to_proto(node),
            heartbeat_period_s=self._heartbeats.period_s,
            managers=self._managers.told(self._seeds()),
            data_path_port=0 if cluster is None else cluster.spec.data_path_port,
        )
        return pb.ManagerMessage(started=started).SerializeToString()

    def close(self, session: Session) -> None:
        """The stream is gone, for whatever reason."""
        if self._sessions.get(session.node_id) is not session:
            return
        del self._sessions[session.node_id]
        if session.node_id in self._store.view.nodes:
            self._heartbeats.suspect(session.node_id, self._monotonic())
            self._writer.observe(session.node_id, lambda node: reports.broken(node, self._clock()))
            _log.info("session of node %s broke", session.node_id)

    def start_reading(self, session: Session, messages: AsyncIterator[pb.AgentMessage]) -> asyncio.Task[None]:
        """Read what the agent says, as part of this term."""
        if self._readers is None:
            raise Unavailable("this manager does not lead the swarm any more")
        return self._readers.create_task(self._read(session, messages))

    async def _read(self, session: Session, messages: AsyncIterator[pb.AgentMessage]) -> None:
        """Never fails: whatever goes wrong with one agent ends its session only."""
        try:
            async for message in messages:
                if self._sessions.get(session.node_id) is not session:
                    return  # replaced, or too late
                self._heartbeats.heard(session.node_id, self._monotonic())
                await self._handle(session, message)
            session.end(Unavailable("the agent ended its side of the session"))
        except PyswarmError as refusal:
            session.end(refusal)
        except Exception as error:  # the stream broke (grpc raises several kinds), or a message was malformed
            _log.info("session of node %s: %s", session.node_id, error or type(error).__name__)
            session.end(Unavailable("the session broke"))

    async def _handle(self, session: Session, message: pb.AgentMessage) -> None:
        match message.WhichOneof("message"):
            case "heartbeat":
                # Answered, so that an agent notices a leader that fell silent well before its channel does.
                session.tell_period(self._heartbeats.period_s)
            case "statuses":
                await self._statuses(session, message.statuses)
            case "images":
                session.images_reported(list(message.images.references))
            case "tables_programmed":
                session.table_programmed(message.tables_programmed.network_id, message.tables_programmed.version)
                self._tell_told()
            case "resync_network_id":
                session.resync(message.resync_network_id)
            case "statistics":
                self._statistics_desk.accept(session.node_id, message.statistics)
            case "description":
                _check_size(message.description.ByteSize())
                check_description(from_proto(NodeDescription, message.description), session.address)
                self._described(session, message.description)
            case "hello":
                raise InvalidArgument("a session has one hello")

    async def _statuses(self, session: Session, batch: pb.TaskStatusBatch) -> None:
        if len(batch.updates) > UPDATES_LIMIT:
            raise InvalidArgument(f"a batch holds at most {UPDATES_LIMIT} statuses")
        await self._writer.wait_room()
        await self._turns.take()  # after a scale-up every agent reports at the same moment
        updates = [(update.task_id, from_proto(TaskStatus, update.status)) for update in batch.updates]
        self._writer.add_statuses(session.node_id, updates, partial(session.acknowledge, batch.sequence))

    # -- images ------------------------------------------------------------------------------------------------------

    def locate_image(self, reference: str, asked_by: str) -> list[str]:
        """Agents that have the image, the least loaded first."""
        view = self._store.view
        if asked_by not in view.nodes:
            raise NotFound(f"node {asked_by} is not part of the swarm any more: leave, then join again")
        found = [
            (len(view.node_tasks.get(node_id, ())), view.nodes[node_id].description.agent_address)
            for node_id, session in self._sessions.items()
            if reference in session.images and node_id != asked_by and node_id in view.nodes
        ]
        return [address for _, address in sorted(found) if address][:LOCATIONS_LIMIT]

    def images_of(self, node_id: str) -> frozenset[str] | None:
        """What the node's image store has; None without a session."""
        session = self._sessions.get(node_id)
        return session.images if session is not None else None

    # -- the loops ---------------------------------------------------------------------------------------------------

    async def _hasten_lost_managers(self) -> None:
        """A manager that is silent in Raft as well went down with its host: its node needs no long grace."""
        deadline = self._monotonic() + SUSPECT_GRACE_S
        await asyncio.sleep(MEMBERS_SETTLE_S)
        silent = self._silent_members()
        nodes = self._store.view.nodes.values()
        claims = [(node.id, node.manager_status.raft_id) for node in nodes if node.manager_status is not None]
        lost = [node_id for node_id, raft_id in claims if raft_id in silent and node_id not in self._sessions]
        self._heartbeats.expect_by(lost, deadline)

    async def _watch_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            for node_id in self._heartbeats.expired(self._monotonic()):
                _log.warning("node %s is down: no heartbeat", node_id)
                self._writer.observe(node_id, lambda node: reports.lost(node, self._clock()))
                session = self._sessions.pop(node_id, None)
                if session is not None:
                    session.end(Unavailable("no heartbeat came in time: open a new session"))

    async def _push_tables(self) -> None:
        while True:
            await self._tables_changed.wait()
            self._tables_changed.clear()
            self._withdrawn.clear()
            changed = self._tables.take_changed()
            everybody = self._tables.ingress_version != self._pushed_ingress
            self._pushed_ingress = self._tables.ingress_version
            for session in self._sessions.values():
                if everybody or session.uses_any(changed):
                    session.mark()
            interval_s = max(TABLES_INTERVAL_S, len(self._sessions) * TABLES_INTERVAL_PER_SESSION_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._withdrawn.wait()

    def _mark(self, node_id: str, task_id: str) -> None:
        session = self._sessions.get(node_id)
        if session is not None:
            session.mark_task(task_id)

    def _tell_told(self) -> None:
        """Whoever waits until everybody knows of a task: its agent is to stop it, or the planner goes on."""
        told = self._tables.take_told()
        for task in told:
            self._mark(task.node_id, task.id)
        if told:
            self._on_told(told)

    # -- commits: called inside apply, must not raise ----------------------------------------------------------------

    def _on_commit(self, index: int, events: tuple[Event, ...]) -> None:
        has_moved = False
        for event in events:
            self._tables.apply(event, index)
            match event.object:
                case Task():
                    self._task_changed(event)
                case Node():
                    self._node_changed(event)
                    has_moved = has_moved or place_of(event.old) != place_of(event.new)
                case RemovedNode() as removed if event.new is not None:
                    for session in self._sessions.values():
                        session.tell_removed([removed])
                case Cluster():
                    self._roots_changed()
                case Service() if self._statistics_desk.apply(event):
                    for session in self._sessions.values():
                        session.tell_statistics(self._statistics_desk.message())
        self._mark_peers()
        if has_moved:
            self._tell_managers()
        self._tell_period()
        if self._tables.has_changed or self._tables.ingress_version != self._pushed_ingress:
            self._tables_changed.set()
        if self._tables.has_withdrawn:
            self._withdrawn.set()
        self._tell_told()

    def _mark_peers(self) -> None:
        """Of nodes whose tunnels lead elsewhere than before, or are to."""
        for node_id in self._tables.tunnel_peers.take_changed():
            if node_id in self._sessions:
                self._sessions[node_id].mark()

    def _tell_trust(self, session: Session) -> None:
        view = self._store.view
        if view.cluster is not None:
            session.tell_roots(trusted_roots(view.cluster))
        latest = sorted(view.removed_nodes.values(), key=lambda removed: removed.expires_at)[-REMOVED_LIMIT:]
        session.tell_removed(latest, complete=True)

    def _roots_changed(self) -> None:
        cluster = self._store.view.cluster
        roots = b"" if cluster is None else trusted_roots(cluster)
        if roots != self._roots:
            self._roots = roots
            for session in self._sessions.values():
                session.tell_roots(roots)

    def _task_changed(self, event: Event) -> None:
        for task in event:
            if isinstance(task, Task):
                self._mark(task.node_id, task.id)

    def _node_changed(self, event: Event) -> None:
        old, new = event
        node_id = event.object.id
        session = self._sessions.get(node_id)
        self._holds.node_changed(node_id, new if isinstance(new, Node) else None)
        if new is None:
            self._heartbeats.forget(node_id)
            if session is not None:
                session.end(NotFound(f"node {node_id} was removed from the swarm"))
        elif old is None:
            self._heartbeats.expect([node_id], self._monotonic())
        elif session is not None and isinstance(old, Node) and isinstance(new, Node):
            if (old.spec, old.role, old.certificate) != (new.spec, new.role, new.certificate):
                session.tell_node(new)
            session.mark()

    def _tell_managers(self) -> None:
        managers = whereabouts(self._store.view.nodes.values())
        if managers != self._managers:
            self._managers = managers
            for session in self._sessions.values():
                session.tell_managers(managers.told(self._seeds()))

    def _tell_period(self) -> None:
        """Only when it differs notably, or each join of a large cluster would be told to every node."""
        period_s = self._period_s()
        if abs(period_s - self._heartbeats.period_s) <= _PERIOD_SLACK * self._heartbeats.period_s:
            return
        self._heartbeats.period_s = period_s
        for session in self._sessions.values():
            session.tell_period(period_s)

    def _period_s(self) -> float:
        view = self._store.view
        configured_s = 1.0 if view.cluster is None else view.cluster.spec.heartbeat_period_s
        return heartbeat_period_s(configured_s, len(view.nodes))


def _check_size(description: int) -> None:
    if description > HELLO_BYTES_LIMIT:
        raise InvalidArgument(f"the description of the node is larger than {HELLO_BYTES_LIMIT} bytes")
