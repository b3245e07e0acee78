"""The leader's planning loop: what changed -> plan -> commit, and again.

The shell around the planner. Knows when to plan (after commits, and when a plan asked to look again) and what to do
with refusals (read again, plan again); decides nothing about the cluster. It starts from nothing at every term: the
first plan looks at everything. While a commit is in flight, what changes is collected; when idle, a change is planned
at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from pyswarm_common.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound, OutOfSequence, Unavailable
from pyswarm_common.ids import IdSource
from pyswarm_common.model import Task
from pyswarm_manager.planner.dirty import Dirty, everything
from pyswarm_manager.planner.draft import Rng, WakeKey
from pyswarm_manager.planner.ledger import Ledger
from pyswarm_manager.planner.plan import Plan, State, plan
from pyswarm_manager.store.changes import Event
from pyswarm_manager.store.encoding import split_changes
from pyswarm_manager.store.store import Store
from pyswarm_manager.store.tables import slot_key

FIRST_PAUSE_S = 0.005
LAST_PAUSE_S = 1.0

_REFUSALS = (OutOfSequence, NotFound, AlreadyExists, FailedPrecondition)
_OVERLOAD = (Unavailable, Exhausted)

PlanObserver = Callable[[Plan, float], None]
"""Told of each plan and how long it took, for metrics and logs."""


class Handover(Protocol):
    """Which tasks every load balancer knows of: `pyswarm_manager.dispatcher.handover`."""

    def is_told(self, task: Task) -> bool: ...

    def watch(self, task: Task) -> None: ...

    def subscribe(self, listener: Callable[[Iterable[Task]], None]) -> Callable[[], None]: ...


async def run_planner(
    store: Store,
    ids: IdSource,
    rng: Rng,
    clock: Callable[[], float],
    observer: PlanObserver | None = None,
    monotonic: Callable[[], float] | None = None,
    handover: Handover | None = None,
) -> None:
    """Plan for as long as this manager leads: run it inside the term's TaskGroup, which cancels it at the term's end.

    Must start only when everything of earlier terms is applied. `pyswarm_common.errors.Unknown` (leadership was lost
    with a proposal in flight) is raised to the group, since planning on could do the same work twice.

    Without `handover` a task counts as known to every load balancer as soon as it runs.
    """
    loop = _Loop(store, ids, rng, clock, observer, monotonic or asyncio.get_running_loop().time, handover)
    unsubscribe = store.subscribe(loop.observe)
    unlisten = handover.subscribe(loop.told) if handover is not None else None
    try:
        while True:
            await loop.wait_dirty()
            await asyncio.sleep(0)  # whoever asked for what was just committed is answered first
            await loop.plan_and_commit()
    finally:
        unsubscribe()
        if unlisten is not None:
            unlisten()


class _Loop:
    def __init__(
        self,
        store: Store,
        ids: IdSource,
        rng: Rng,
        clock: Callable[[], float],
        observer: PlanObserver | None,
        monotonic: Callable[[], float],
        handover: Handover | None,
    ) -> None:
        self._handover = handover
        self._store = store
        self._ids = ids
        self._rng = rng
        self._clock = clock
        self._observer = observer
        self._ledger = Ledger.of(store.view)
        self._dirty = everything()
        self._monotonic = monotonic
        self._wakes: dict[WakeKey, float] = {}
        """By the clock that nobody sets: when the calendar is set back, what waits must not wait for it to catch up."""
        self._news = asyncio.Event()
        self._pause_s = 0.0

    def observe(self, index: int, events: tuple[Event, ...]) -> None:
        """Called by the store inside apply, never during a plan."""
        del index
        self._ledger.observe_events(events)
        self._dirty.add_events(events)
        self._news.set()

    def told(self, tasks: Iterable[Task]) -> None:
        """Every load balancer knows of these tasks now: their slots may go on."""
        self._dirty.slots.update(((task.service_id, slot_key(task)), None) for task in tasks)
        self._news.set()

    async def wait_dirty(self) -> None:
        """Return when there is something to look at: a change, or a time that a plan asked for."""
        while not self._dirty:
            self._news.clear()
            try:
                async with asyncio.timeout(self._seconds_to_wake()):
                    await self._news.wait()
            except TimeoutError:
                self._add_due()
        self._add_due()

    async def plan_and_commit(self) -> None:
        dirty, self._dirty = self._dirty, Dirty()
        started = self._clock()
        found = plan(self._state(), dirty, started, self._rng, self._ids)
        if self._handover is not None:
            for task in found.awaited:
                self._handover.watch(task)
        if self._observer is not None:
            self._observer(found, self._clock() - started)
        self._dirty.merge(found.unfinished)
        until_calendar_s = self._monotonic() - started
        for key, at in found.wakes.items():
            wake_at = at + until_calendar_s
            self._wakes[key] = min(wake_at, self._wakes.get(key, wake_at))
        try:
            for piece in split_changes(found.changes):
                await self._store.propose(piece)
        except (*_REFUSALS, *_OVERLOAD):
            # Somebody else changed what the plan was made from, or the log is busy: look at the same things again.
            self._dirty.merge(dirty)
            await self._rest()
        else:
            self._pause_s = 0.0

    def _state(self) -> State:
        if self._handover is None:
            return State(self._store.view, self._ledger)
        return State(self._store.view, self._ledger, self._handover.is_told)

    async def _rest(self) -> None:
        """Longer after each refusal in a row, so that a log without quorum is not asked all the time."""
        self._pause_s = min(LAST_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
        await asyncio.sleep(self._pause_s)

    def _seconds_to_wake(self) -> float | None:
        next_wake = min(self._wakes.values(), default=None)
        return None if next_wake is None else max(0.0, next_wake - self._monotonic())

    def _add_due(self) -> None:
        now = self._monotonic()
        for key in [key for key, at in self._wakes.items() if at <= now]:
            del self._wakes[key]
            service_id, slot = key
            if slot is None:
                self._dirty.services[service_id] = None
            else:
                self._dirty.slots[service_id, slot] = None
