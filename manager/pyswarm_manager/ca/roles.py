"""The leader's roles loop: makes Raft's members what the Node objects want them to be.

Level-triggered: it compares, does one thing, and compares again, so it can start from nothing after a crash. A demoted
manager leaves Raft first, and only then is a worker; a member that no manager claims (its node was removed) leaves; a
node that was taken out of Raft and is to be a manager again gets in under a new raft id, so it loses its old one. A
leader that is to leave hands over, and the next leader removes it. It never removes a member whose loss would cost the
majority (unless the demotion was forced), and never adds one: a promoted node asks for itself (`ca.membership`). A
member that cannot be spared holds up no other one: a silent one may go first, and make it sparable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from pyswarm_common.errors import PyswarmError
from pyswarm_common.model import Node, NodeRole
from pyswarm_manager.managers.quorum import Members, check_step, is_heard, leaving
from pyswarm_manager.ports import RaftPort
from pyswarm_manager.store.changes import Event, Update
from pyswarm_manager.store.tables import Kind, Tables
from pyswarm_manager.writes import FollowedStore

_log = logging.getLogger(__name__)

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """A member that is not to be one."""

    raft_id: int
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class BecomeWorker:
    """A node that has left Raft."""

    node: Node


@dataclass(frozen=True, slots=True)
class ForgetMembership:
    """A manager whose raft id was removed: wanted back before it had become a worker."""

    node: Node


Step = RemoveMember | BecomeWorker | ForgetMembership


def next_steps(view: Tables, members: Members, is_removed: Callable[[int], bool] = lambda raft_id: False) -> list[Step]:
    """What is to be done, the easiest first: silent members go before live ones, and the leader last. Pure."""
    if view.cluster is None:
        return []
    leavers = leaving(view, members)
    forced = {n.manager_status.raft_id for n in view.nodes.values() if n.demotion_forced and n.manager_status}
    steps: list[Step] = [RemoveMember(raft_id, raft_id in forced) for raft_id in sorted(leavers)]
    steps.sort(key=lambda step: _removal_key(members, step))
    steps += [BecomeWorker(node) for node in view.nodes.values() if _has_left_raft(node, members)]
    steps += [ForgetMembership(node) for node in view.nodes.values() if _is_wanted_back(node, is_removed)]
    return steps


def _removal_key(members: Members, step: Step) -> tuple[bool, bool]:
    assert isinstance(step, RemoveMember)
    member = members[step.raft_id]
    return member.is_leader, is_heard(member)


def _has_left_raft(node: Node, members: Members) -> bool:
    if node.spec.role is NodeRole.MANAGER or node.role is NodeRole.WORKER:
        return False
    return node.manager_status is None or node.manager_status.raft_id not in members


def _is_wanted_back(node: Node, is_removed: Callable[[int], bool]) -> bool:
    status = node.manager_status
    return node.spec.role is NodeRole.MANAGER and status is not None and is_removed(status.raft_id)


async def run_roles(store: FollowedStore, raft: RaftPort) -> None:
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


async def _take_steps(store: FollowedStore, raft: RaftPort) -> bool:
    """Do everything that is to be done; False if something could not be done now."""
    while steps := next_steps(store.view, raft.members, raft.is_removed):
        if not await _take_one(store, raft, steps):
            return False
    return True


async def _take_one(store: FollowedStore, raft: RaftPort, steps: list[Step]) -> bool:
    """Do the first that can be done."""
    for step in steps:
        try:
            match step:
                case RemoveMember():
                    await _remove(store, raft, step)
                case BecomeWorker(node):
                    await _make_worker(store, node)
                case ForgetMembership(node):
                    await store.propose([Update(replace(node, manager_status=None))])
        except PyswarmError as error:
            _log.info("a change of managers waits: %s", error)
        else:
            return True
    return False


async def _make_worker(store: FollowedStore, node: Node) -> None:
    worker = replace(node, role=NodeRole.WORKER, manager_status=None, demotion_forced=False)
    await store.propose([Update(worker)])
    _log.info("node %s is a worker now", node.id)


async def _remove(store: FollowedStore, raft: RaftPort, step: RemoveMember) -> None:
    await raft.hear_members()
    check_step(store.view, raft.members, step.raft_id, force=step.is_forced)
    if step.raft_id == raft.raft_id:
        _log.info("this manager is to leave the managers: it hands over leadership first")
        await raft.transfer_leadership()
        return
    await raft.remove_member(step.raft_id, force=step.is_forced)
    _log.info("raft member %x was removed", step.raft_id)
