"""The leader's roles loop: makes Raft's members what the Node objects want them to be.

Level-triggered: it compares, does one thing, and compares again, so it can start from nothing after a crash. A demoted
manager leaves Raft first, and only then is a worker; a member that no manager claims (its node was removed) leaves. A
leader that is to leave hands over, and the next leader removes it. It never removes a member whose loss would cost the
majority, and never adds one: a promoted node asks for itself (`ca.membership`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from pyswarm_common.errors import PyswarmError
from pyswarm_common.model import Node, NodeRole
from pyswarm_manager.api.nodes import check_quorum_without
from pyswarm_manager.api.ports import RaftPort
from pyswarm_manager.api.writes import StorePort
from pyswarm_manager.store.changes import Event, Update
from pyswarm_manager.store.tables import Kind, Tables

_log = logging.getLogger(__name__)

RETRY_S = 1.0


class RolesStore(StorePort, Protocol):
    def subscribe(self, callback: Callable[[int, tuple[Event, ...]], None]) -> Callable[[], None]: ...


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """A member that is not to be one."""

    raft_id: int


@dataclass(frozen=True, slots=True)
class BecomeWorker:
    """A node that has left Raft."""

    node: Node


Step = RemoveMember | BecomeWorker


def next_step(view: Tables, members: frozenset[int]) -> Step | None:
    """What is to be done next, if anything. Pure."""
    if view.cluster is None:
        return None
    claimed: set[int | None] = set()
    for node in view.nodes.values():
        raft_id = node.manager_status.raft_id if node.manager_status is not None else None
        if node.spec.role is NodeRole.MANAGER:
            claimed.add(raft_id)
        elif raft_id in members:
            return RemoveMember(raft_id)
        elif node.role is NodeRole.MANAGER:
            return BecomeWorker(node)
    if None in claimed:
        return None  # a manager that has not said yet which member it is: perhaps one that nobody else claims
    leftover = sorted(members - claimed)
    return RemoveMember(leftover[0]) if leftover else None


async def run_roles(store: RolesStore, raft: RaftPort) -> None:
    """Run while this manager leads; ends with the term's group."""
    changed = asyncio.Event()

    def on_change(index: int, events: tuple[Event, ...]) -> None:
        if any(event.kind is Kind.NODE for event in events):
            changed.set()

    unsubscribe = store.subscribe(on_change)
    try:
        while True:
            changed.clear()
            if await _take_steps(store, raft):
                await changed.wait()
            else:
                await asyncio.sleep(RETRY_S)
    finally:
        unsubscribe()


async def _take_steps(store: RolesStore, raft: RaftPort) -> bool:
    """Do everything that is to be done; False if something could not be done now."""
    try:
        while (step := next_step(store.view, frozenset(raft.members))) is not None:
            match step:
                case RemoveMember(raft_id):
                    await _remove(raft, raft_id)
                case BecomeWorker(node):
                    worker = replace(node, role=NodeRole.WORKER, manager_status=None)
                    await store.propose([Update(worker)])
                    _log.info("node %s is a worker now", node.id)
    except PyswarmError as error:
        _log.info("a change of managers waits: %s", error)
        return False
    return True


async def _remove(raft: RaftPort, raft_id: int) -> None:
    check_quorum_without(raft, raft_id)
    if raft_id == raft.raft_id:
        _log.info("this manager is to leave the managers: it hands over leadership first")
        await raft.transfer_leadership()
        return
    await raft.remove_member(raft_id)
    _log.info("raft member %x was removed", raft_id)
