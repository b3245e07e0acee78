"""The leader's loop that keeps the number of managers: looks each second, and commits what `managers.count` decides.

Only the wanted role is written; the node fetches its certificate and starts its manager, or `ca.roles` takes it out of
Raft. What cannot be committed now is decided anew at the next look. Ends with the term's group.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from pyswarm_common.errors import NotFound, PyswarmError
from pyswarm_common.model import NodeRole
from pyswarm_manager.managers.count import Change, Demote, History, Promote, Timing, next_manager_change
from pyswarm_manager.managers.quorum import check_demotion
from pyswarm_manager.ports import RaftPort
from pyswarm_manager.store.changes import Update
from pyswarm_manager.writes import StorePort

_log = logging.getLogger(__name__)

PERIOD_S = 1.0


async def keep_manager_count(
    store: StorePort,
    raft: RaftPort,
    manager_changes: asyncio.Lock,
    *,
    clock: Callable[[], float] = time.monotonic,
    timing: Timing | None = None,
    period_s: float = PERIOD_S,
) -> None:
    """Run while this manager leads."""
    timing = timing or Timing()
    history = History(quiet_since=clock())
    while True:
        await asyncio.sleep(period_s)
        history = history.observed(store.view, raft.members, clock())
        try:
            async with manager_changes:
                change = next_manager_change(store.view, raft.members, history, clock(), timing)
                if change is None:
                    continue
                await _commit(store, raft, change)
        except PyswarmError as error:
            _log.info("the number of managers waits: %s", error)
            continue
        if isinstance(change, Demote) and change.node_id in history.joining_since:
            history = history.given_up(change.node_id, clock(), timing)


async def _commit(store: StorePort, raft: RaftPort, change: Change) -> None:
    node = store.view.nodes.get(change.node_id)
    if node is None:
        raise NotFound(f"node {change.node_id} was removed meanwhile")
    match change:
        case Promote():
            role, verb = NodeRole.MANAGER, "promoting"
        case Demote():
            await raft.hear_members()
            check_demotion(store.view, raft.members, node)
            role, verb = NodeRole.WORKER, "demoting"
    _log.info("%s %s (node %s): %s", verb, node.description.hostname or "it", node.id, change.reason)
    await store.propose([Update(replace(node, spec=replace(node.spec, role=role), demotion_forced=False))])
