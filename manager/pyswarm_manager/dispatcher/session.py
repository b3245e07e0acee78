"""One agent's session: what it is still to be told, built when its stream is free.

Nothing is queued for a slow agent: events only mark what may have changed, and the next message is made of the
differences at that moment. So a session holds at most one message and the names of what to look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.codec import to_proto
from pyswarm_common.errors import PyswarmError
from pyswarm_common.model import Node, RemovedNode
from pyswarm_manager.dispatcher.core.assignments import Given, complete, increment
from pyswarm_manager.dispatcher.core.tables import NetworkTables
from pyswarm_manager.dispatcher.turns import Turns
from pyswarm_manager.store.tables import Tables

IMAGES_LIMIT = 1000


class Session:
    """Belongs to the term it was opened in; the servicer carries its messages."""

    def __init__(
        self, session_id: str, node_id: str, view: Tables, tables: NetworkTables, turns: Turns | None = None
    ) -> None:
        """`turns` are those of all sessions of the term."""
        self._turns = turns or Turns()
        self.id = session_id
        self.node_id = node_id
        self.images: frozenset[str] = frozenset()
        self.address = ""
        """Where the node said that it is."""
        self._view, self._tables = view, tables
        self._given = Given(node_id)
        self._tasks: dict[str, None] = {}
        self._resync: set[str] = set()
        self._notices: dict[str, pb.ManagerMessage] = {}
        self._trust = pb.TrustUpdate()
        self._end: PyswarmError | None = None
        self._wake = asyncio.Event()

    # -- marks: cheap, from inside apply -----------------------------------------------------------------------------

    def mark_task(self, task_id: str) -> None:
        """The task may have changed."""
        self._tasks[task_id] = None
        self._wake.set()

    def mark(self) -> None:
        """A table or the ingress may have changed."""
        self._wake.set()

    def uses_any(self, network_ids: frozenset[str]) -> bool:
        """Whether the node was told of any of these networks."""
        return not network_ids.isdisjoint(self._given.networks)

    def resync(self, network_id: str) -> None:
        """The agent asks for the whole table; a network that it does not have is passed over."""
        if network_id in self._given.networks:
            self._resync.add(network_id)
            self._wake.set()

    def table_programmed(self, network_id: str, version: int) -> None:
        """The agent has this version in its kernel. Only what the node was told can be acknowledged."""
        told = self._given.networks.get(network_id)
        if told is not None:
            self._tables.programmed.acknowledge(self.node_id, network_id, min(version, told))

    def images_reported(self, references: list[str]) -> None:
        """What the node's image store has."""
        self.images = frozenset(references[:IMAGES_LIMIT])

    def acknowledge(self, sequence: int) -> None:
        """Everything up to this batch of statuses is committed."""
        self._notice("ack", pb.ManagerMessage(status_ack=pb.StatusAck(sequence=sequence)))

    def tell_node(self, node: Node) -> None:
        """The node's own object changed."""
        self._notice("node", pb.ManagerMessage(node=to_proto(node)))

    def tell_managers(self, managers: pb.ManagerList) -> None:
        """Managers came or went."""
        self._notice("managers", pb.ManagerMessage(managers=managers))

    def tell_period(self, period_s: float) -> None:
        """The heartbeat period: when it changed, and as the answer to each heartbeat."""
        self._notice("period", pb.ManagerMessage(heartbeat_period=pb.HeartbeatPeriod(period_s=period_s)))

    def tell_statistics(self, wanted: pb.StatisticsWanted) -> None:
        """Of which services the agent is to report what their tasks use."""
        self._notice("statistics", pb.ManagerMessage(statistics_wanted=wanted))

    def tell_roots(self, roots: bytes) -> None:
        """The roots (PEM) to trust."""
        self._trust.root_ca_certs = roots
        self._wake.set()

    def tell_removed(self, removed: Iterable[RemovedNode], *, complete: bool = False) -> None:
        """Nodes whose certificates are to be refused: all of them, or those that came to them."""
        self._trust.removed.extend(to_proto(node) for node in removed)
        self._trust.complete = self._trust.complete or complete
        self._wake.set()

    def end(self, reason: PyswarmError) -> None:
        """End the stream with this refusal."""
        if self._end is None:
            self._end = reason
        self._wake.set()

    # -- the stream --------------------------------------------------------------------------------------------------

    async def messages(self) -> AsyncIterator[bytes]:
        """Serialised ManagerMessages after SessionStarted: everything, then differences, until the session ends."""
        await self._turns.take()
        yield complete(self._given, self._view, self._tables)
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._end is not None:
                raise self._end
            for message in self._take_notices():
                yield message.SerializeToString()
            await self._turns.take()
            assignments = self._take_assignments()
            if assignments is not None:
                yield assignments

    def _notice(self, kind: str, message: pb.ManagerMessage) -> None:
        """A newer notice of a kind replaces one that waits."""
        self._notices[kind] = message
        self._wake.set()

    def _take_notices(self) -> list[pb.ManagerMessage]:
        notices = list(self._notices.values())
        self._notices.clear()
        if self._trust.ByteSize():
            notices.append(pb.ManagerMessage(trust=self._trust))
            self._trust = pb.TrustUpdate()
        return notices

    def _take_assignments(self) -> bytes | None:
        tasks, self._tasks = self._tasks, {}
        resync, self._resync = frozenset(self._resync), set()
        return increment(self._given, tasks, resync, self._view, self._tables)
