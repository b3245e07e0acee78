"""Bugs in what stands on consensus: the store, the planner, the dispatcher and the agents."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from pyswarm_common.model import Node, NodeDescription
from pyswarm_manager.dispatcher.core import assignments, reports
from pyswarm_manager.dispatcher.core.tables import NetworkTables
from pyswarm_manager.dispatcher.session import Session
from pyswarm_manager.planner.allocate.addresses import AddressBook, Range
from pyswarm_manager.planner.orchestrate import replicated
from pyswarm_manager.store.apply import _Transaction
from pyswarm_manager.store.changes import Change, ChangeSet
from pyswarm_manager.store.encoding import encode_change_set
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import Kind, Tables
from pyswarm_simulator.planting import planted, replaced
from pyswarm_worker.statuses import StatusOutbox

# -- the store -----------------------------------------------------------------------------------------------------


@planted("versions are not compared", "reads", 120)
def _no_versions() -> Iterator[None]:
    """The last writer wins."""
    with replaced(_Transaction, "_check_version", lambda self, kind, object_id, old, version: None):
        yield


@planted("a proposal is answered before it is committed", "mixed", 50)
def _answer_early() -> Iterator[None]:
    """What was handed to Raft is taken for done."""

    async def propose(self: Store, changes: Iterable[Change]) -> int:
        data = encode_change_set(ChangeSet(tuple(changes), self._clock()))
        log: Any = self._log
        if not log.is_leader:
            raise log._loop.not_leading()
        log._loop.proposals.queue(data).add_done_callback(lambda future: future.cancelled() or future.exception())
        log._loop.wake()
        await asyncio.sleep(0.001)
        return int(log.applied_index)

    with replaced(Store, "propose", propose):
        yield


@planted("a snapshot leaves out the networks", "mixed", 180)
def _snapshot_without_networks() -> Iterator[None]:
    """A member that is restored from it lacks them."""
    original = Store.restore

    def restore(self: Store, index: int, data: bytes) -> None:
        original(self, index, data)
        for network_id in list(self._tables.networks):
            self._tables.remove(Kind.NETWORK, network_id)

    with replaced(Store, "restore", restore):
        yield


@planted("apply depends on the member", "calm", 25)
def _apply_by_chance() -> Iterator[None]:
    """Times are taken from something that differs between members."""
    original = _Transaction.__init__
    calls = itertools.count()

    def begin(self: _Transaction, tables: Tables, index: int, now: float, author: str) -> None:
        original(self, tables, index, now + next(calls) % 2, author)

    with replaced(_Transaction, "__init__", begin):
        yield


# -- the planner ---------------------------------------------------------------------------------------------------


@planted("an address is given while it is used", "mixed", 180)
def _forget_addresses() -> Iterator[None]:
    """Nobody remembers who has which."""

    def take(self: Range) -> int | None:
        number = self.first
        while number in self.blocked:
            number += 1
        return number

    with replaced(Range, "take", take):
        yield


@planted("addresses leak", "mixed", 180)
def _forget_nothing() -> Iterator[None]:
    """An address is free as soon as its holder is looked at, though others hold it too."""
    with replaced(AddressBook, "hold", lambda self, number: None):
        yield


@planted("surplus slots stay", "mixed", 100)
def _keep_surplus() -> Iterator[None]:
    """A service that is made smaller keeps all its tasks."""
    with replaced(replicated, "_surplus", lambda filled, count: {}):
        yield


@planted("one replica too few", "mixed", 100)
def _one_too_few() -> Iterator[None]:
    """Off by one where slots are added."""
    original = replicated._add
    with replaced(replicated, "_add", lambda work, filled, missing: original(work, filled, missing - 1)):
        yield


# -- the dispatcher ------------------------------------------------------------------------------------------------


@planted("changes of tasks are not told", "mixed", 100)
def _tell_nothing() -> Iterator[None]:
    """A session tells everything once, and never again."""
    with replaced(Session, "mark_task", lambda self, task_id: None):
        yield


@planted("a task is stopped before every load balancer has let go of it", "disks", 120)
def _stop_at_once() -> Iterator[None]:
    """Its agent is told as soon as it is committed."""
    with replaced(NetworkTables, "is_told", lambda self, task: True):
        yield


@planted("an ended task is forgotten with its log", "mixed", 100)
def _forget_ended() -> Iterator[None]:
    """Nodes are told of tasks that have not ended, and of no others."""
    with replaced(assignments, "is_kept", lambda task: False):
        yield


@planted("a returned node is not believed", "mixed", 120)
def _stay_down() -> Iterator[None]:
    """A node that was down stays so, though it has a session."""

    def opened(node: Node, description: NodeDescription, address: str, now: float) -> Any:
        return original(node, description, address, now) if node.status.state.name == "UNKNOWN" else None

    original = reports.opened
    with replaced(reports, "opened", opened):
        yield


# -- the agents ----------------------------------------------------------------------------------------------------


@planted("a report is forgotten once it is sent", "workers", 180)
def _forget_reports() -> Iterator[None]:
    """What was sent in a session that broke is taken for received."""

    def begin_session(self: StatusOutbox) -> None:
        self._in_flight.clear()
        self._sequence = 0

    with replaced(StatusOutbox, "begin_session", begin_session):
        yield
