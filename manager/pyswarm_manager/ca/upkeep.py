"""The leader's loop over the CA's own objects: the root's rotation, tokens that ended, removed nodes long gone.

Level-triggered: it looks at the objects, commits what is next, and looks again. So it may begin anew after any crash,
at any step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pyswarm_common.errors import NotFound, OutOfSequence, PyswarmError, Unavailable, Unknown
from pyswarm_manager.ca import rotation
from pyswarm_manager.ca.tokens import is_reapable
from pyswarm_manager.ports import Clock
from pyswarm_manager.removed import forgettable
from pyswarm_manager.store.changes import Change, Event, delete
from pyswarm_manager.store.tables import Kind, Tables
from pyswarm_manager.writes import FollowedStore

_log = logging.getLogger(__name__)

REAP_PERIOD_S = 60.0
_PAUSE_S = 0.05
_REFUSED_PAUSE_S = 1.0
_KINDS = frozenset({Kind.CLUSTER, Kind.NODE})


async def run_upkeep(store: FollowedStore, clock: Clock, reap_period_s: float = REAP_PERIOD_S) -> None:
    """Run while this manager leads; ends with the term's group."""
    changed = asyncio.Event()

    def on_change(index: int, events: tuple[Event, ...]) -> None:
        if any(event.kind in _KINDS for event in events):
            changed.set()

    unsubscribe = store.subscribe(on_change)
    try:
        while True:
            changed.clear()
            await _commit(store, lambda view: ended(view, clock()))
            while await _commit(store, rotation.next_changes):
                _log.info("root rotation: %s", _progress(store.view))
            await _wait(changed, reap_period_s)
            await asyncio.sleep(_PAUSE_S)  # many nodes change at once: look at them together
    finally:
        unsubscribe()


def ended(view: Tables, now: float) -> list[Change]:
    """Tokens and removed nodes that nobody can ask about any more."""
    tokens: list[Change] = [delete(limited) for limited in view.join_tokens.values() if is_reapable(limited, now)]
    return tokens + forgettable(view, now)


async def _commit(store: FollowedStore, decide: Callable[[Tables], list[Change]]) -> bool:
    """Whether something was committed; what others changed meanwhile is looked at again."""
    while changes := decide(store.view):
        try:
            await store.propose(changes)
        except (OutOfSequence, NotFound):
            await asyncio.sleep(_PAUSE_S)
        except (Unavailable, Unknown):
            raise  # leadership is lost: the next leader goes on
        except PyswarmError as error:
            _log.warning("the CA's upkeep waits: %s", error)
            await asyncio.sleep(_REFUSED_PAUSE_S)
        else:
            return True
    return False


def _progress(view: Tables) -> str:
    cluster = view.cluster
    if cluster is None or cluster.root_rotation is None:
        return "complete, the old root is trusted no more"
    message = rotation.status(view, cluster)
    return f"{message.nodes_rotated} of {message.nodes_total} nodes have new certificates"


async def _wait(changed: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await changed.wait()
    except TimeoutError:
        pass
