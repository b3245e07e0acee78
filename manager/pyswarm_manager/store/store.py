"""The store's shell: proposes change sets, applies what Raft commits, publishes what changed.

One per manager, on one event loop. Reading `view` is synchronous and always consistent as long as the reader does not
await in between. Decides nothing about content: `store.apply` does.

Bounded: the last `HISTORY_BATCHES` commits (less, if they are large) are kept for watchers; a watcher that falls behind
them gets Exhausted and must read everything again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import NamedTuple, Protocol

from pyswarm_common.errors import Exhausted
from pyswarm_manager.store.apply import Applied, Refusal, apply
from pyswarm_manager.store.changes import Change, ChangeSet, Checkpoint, Event
from pyswarm_manager.store.checkpoints import Checkpoints
from pyswarm_manager.store.encoding import (
    capture_snapshot,
    decode_change_set,
    decode_snapshot,
    encode_captured,
    encode_change_set,
)
from pyswarm_manager.store.recording import asked_by
from pyswarm_manager.store.tables import Kind, Tables

HISTORY_BATCHES = 4096
HISTORY_EVENTS = 200_000
HISTORY_BYTES = 64 << 20
"""Of the entries that brought the events; what they hold in memory is a small multiple of that."""
_REST_S = 0.0001

Subscriber = Callable[[int, tuple[Event, ...]], None]


class Batch(NamedTuple):
    """What one commit changed, and when it was proposed by its leader's clock."""

    version: int
    """The index it was committed at."""
    events: tuple[Event, ...]
    at: float


class ProposalResult(Protocol):
    """What became of a proposal: the index it was committed at, and what `apply` returned there."""

    @property
    def index(self) -> int: ...

    @property
    def result(self) -> object: ...


class Log(Protocol):
    """What the store needs of Raft."""

    async def propose(self, data: bytes) -> ProposalResult:
        """Wait until the entry is committed and applied here. Raises Unavailable, Unknown or Exhausted."""
        ...


class Store:
    """The replicated tables of one manager. Raft's state machine."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._log: Log | None = None
        self._tables = Tables()
        self._subscribers: dict[object, Subscriber] = {}
        self._history = _History()
        self.checkpoints = Checkpoints()
        self._audit_news = asyncio.Event()

    @property
    def view(self) -> Tables:
        """The tables as of now. They change at the next commit: do not await while reading, do not keep them."""
        return self._tables

    def connect(self, log: Log) -> None:
        """Give the store its way into Raft (which needs the store first, as its state machine)."""
        self._log = log

    async def propose(self, changes: Iterable[Change]) -> int:
        """Commit the changes, all or none; returns the index. Raises the refusal, or why it could not be proposed.

        What a call proposes is recorded as its caller's (see `recording`), even if it changes no object at all."""
        assert self._log is not None, "the store is not connected to a log"
        data = encode_change_set(ChangeSet(tuple(changes), self._clock(), asked_by()))
        proposal = await self._log.propose(data)
        if isinstance(proposal.result, Refusal):
            raise proposal.result.error
        return proposal.index

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back, synchronously, after every change with (index, events). Returns how to stop it.

        The callback must not raise and must not block: it runs inside apply.
        """
        key = object()
        self._subscribers[key] = callback
        return lambda: self._subscribers.pop(key, None) and None

    def version_before(self, at: float) -> int:
        """The version to watch from for every change since that time. Exhausted if some may be kept no longer."""
        return self._history.version_before(at, self._tables.index)

    async def watch(self, from_version: int | None = None, *, follow: bool = True) -> AsyncIterator[Batch]:
        """Every commit after `from_version`, or from now on. Exhausted if that is no longer kept."""
        position = self._history.position_after(from_version)
        while follow or not self._history.is_end(position):
            yield await self._history.batch_at(position)
            position += 1

    async def wait_audit(self, after_index: int) -> None:
        """Until the audit log has a record after that index."""
        while not self._tables.audit or self._tables.audit[-1].index <= after_index:
            await self._audit_news.wait()

    # ---- what Raft calls

    def apply(self, index: int, term: int, data: bytes) -> Applied | Refusal:
        """Apply one committed entry. Deterministic; an exception here must end the process."""
        del term
        change_set = decode_change_set(data)
        result = apply(self._tables, index, change_set)
        if change_set.changes and isinstance(change_set.changes[-1], Checkpoint):
            self.checkpoints.take(self._tables)
        if change_set.audit is not None and isinstance(result, Applied):
            self._wake_auditors()
        if isinstance(result, Applied) and result.events:
            self._history.add(Batch(index, result.events, change_set.now), len(data))
            self._call_back(index, result.events)
        return result

    def capture(self) -> Callable[[], bytes]:
        """The tables of this moment; what is returned makes a snapshot of them, slowly, in another thread."""
        return partial(encode_captured, capture_snapshot(self._tables), _let_others_run)

    def restore(self, index: int, data: bytes) -> None:
        """Become the snapshot. Subscribers see the difference as one batch; watchers must read everything again."""
        restored = decode_snapshot(data)
        assert restored.index <= index, (restored.index, index)
        restored.index = index
        events = _difference(self._tables, restored)
        self._tables = restored
        self._history.reset(index)
        self._call_back(index, events)
        self._wake_auditors()

    def _call_back(self, index: int, events: tuple[Event, ...]) -> None:
        for callback in tuple(self._subscribers.values()):
            callback(index, events)

    def _wake_auditors(self) -> None:
        self._audit_news.set()
        self._audit_news = asyncio.Event()


def _let_others_run() -> None:
    """Give up the interpreter's lock: a thread that only computes lets others wait for 5 ms each time."""
    time.sleep(_REST_S)


class _History:
    """The last commits, read by any number of watchers, each at its own position. The only buffer between them."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._first = 0  # position of the oldest batch kept
        self._sizes: deque[tuple[int, int]] = deque()  # (events, bytes) of each batch
        self._events = self._bytes = 0
        self._dropped_index = 0  # index of the newest batch no longer kept
        self._news = asyncio.Event()

    def add(self, batch: Batch, size: int) -> None:
        self._batches.append(batch)
        self._sizes.append((len(batch.events), size))
        self._events += len(batch.events)
        self._bytes += size
        while len(self._batches) > HISTORY_BATCHES or (self._is_large() and len(self._batches) > 1):
            self._dropped_index = self._batches.popleft().version
            dropped_events, dropped_bytes = self._sizes.popleft()
            self._events -= dropped_events
            self._bytes -= dropped_bytes
            self._first += 1
        self._wake()

    def _is_large(self) -> bool:
        return self._events > HISTORY_EVENTS or self._bytes > HISTORY_BYTES

    def position_after(self, version: int | None) -> int:
        if version is None:
            return self._first + len(self._batches)
        if version < self._dropped_index:
            raise _too_old()
        return self._first + sum(1 for batch in self._batches if batch.version <= version)

    def version_before(self, at: float, current: int) -> int:
        """Leaders' clocks differ: what counts is the first change from which on none is older."""
        version = current
        for batch in reversed(self._batches):
            if batch.at < at:
                return batch.version
            version = batch.version - 1
        if self._dropped_index:
            raise _too_old()
        return version

    def is_end(self, position: int) -> bool:
        return position >= self._first + len(self._batches)

    async def batch_at(self, position: int) -> Batch:
        """The batch at that position, as soon as there is one."""
        while self.is_end(position):
            await self._news.wait()
        if position < self._first:
            raise _too_old()
        return self._batches[position - self._first]

    def reset(self, index: int) -> None:
        """The tables jumped to `index`: every watcher must read again."""
        self._first += len(self._batches) + 1
        self._batches.clear()
        self._sizes.clear()
        self._events = self._bytes = 0
        self._dropped_index = index
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _too_old() -> Exhausted:
    return Exhausted("the watch fell too far behind: read everything again, then watch from the version that was read")


def _difference(before: Tables, after: Tables) -> tuple[Event, ...]:
    events = []
    for kind in Kind:
        old, new = before.table(kind), after.table(kind)
        events += [Event(item, None) for object_id, item in old.items() if object_id not in new]
        for object_id, item in new.items():
            known = old.get(object_id)
            if known is None or known.meta.version != item.meta.version:
                events.append(Event(known, item))
    return tuple(events)
