"""The leader's loop over secrets and configs: services follow new versions, and versions that nobody needs go.

Level-triggered, as every loop of the leader: it looks at the objects, commits what is next, and looks again; so it may
begin anew after any crash. It looks only when a version was superseded or the history of a service changed.
"""

from __future__ import annotations

import asyncio
import logging

from pyswarm_common.errors import NotFound, OutOfSequence, PyswarmError, Unavailable, Unknown
from pyswarm_manager.files.versions import following, has_superseded, unneeded
from pyswarm_manager.store.changes import Event, Update
from pyswarm_manager.store.tables import Kind
from pyswarm_manager.writes import FollowedStore

_log = logging.getLogger(__name__)

_KINDS = frozenset({Kind.SECRET, Kind.CONFIG})
_PAUSE_S = 0.05
_REFUSED_PAUSE_S = 1.0
REMOVE_PERIOD_S = 60.0


async def run_files(store: FollowedStore, remove_period_s: float = REMOVE_PERIOD_S) -> None:
    """Run while this manager leads; ends with the term's group."""
    changed = asyncio.Event()

    def on_commit(index: int, events: tuple[Event, ...]) -> None:
        if any(event.kind in _KINDS for event in events):
            changed.set()

    unsubscribe = store.subscribe(on_commit)
    try:
        while True:
            changed.clear()
            if has_superseded(store.view):
                await _follow(store)
                await _remove(store)
            try:
                async with asyncio.timeout(remove_period_s if has_superseded(store.view) else None):
                    await changed.wait()
            except TimeoutError:
                continue
    finally:
        unsubscribe()


async def _follow(store: FollowedStore) -> None:
    """One service per change set: what one of them is refused for holds up no other."""
    refused: set[str] = set()
    while True:
        waiting = [service for service in following(store.view) if service.id not in refused]
        if not waiting:
            return
        for service in waiting:
            try:
                await store.propose([Update(service)])
            except (OutOfSequence, NotFound):
                await asyncio.sleep(_PAUSE_S)  # somebody else changed it: look again
            except (Unavailable, Unknown):
                raise  # leadership is lost: the next leader goes on
            except PyswarmError as error:
                refused.add(service.id)
                _log.warning("service %s cannot follow its secrets and configs: %s", service.spec.name, error)
            else:
                _log.info("service %s goes on to the latest versions of its secrets and configs", service.spec.name)


async def _remove(store: FollowedStore) -> None:
    while changes := unneeded(store.view):
        try:
            await store.propose(changes)
        except (Unavailable, Unknown):
            raise
        except PyswarmError as error:  # one of them is needed again
            _log.info("old versions of secrets and configs stay for now: %s", error)
            await asyncio.sleep(_REFUSED_PAUSE_S)
            return
