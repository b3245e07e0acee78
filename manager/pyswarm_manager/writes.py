"""What every write on the leader shares: the store, ids, and reading again when somebody else was faster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pyswarm_common.errors import InvalidArgument, OutOfSequence, Unavailable
from pyswarm_common.ids import IdSource
from pyswarm_common.model import Cluster
from pyswarm_manager.ports import Clock, RaftPort
from pyswarm_manager.store.changes import Change, Event
from pyswarm_manager.store.tables import Tables

R = TypeVar("R")

ATTEMPTS = 8
"""How often a change is tried again when the object moves under it."""


class StorePort(Protocol):
    """What the API needs of the store."""

    @property
    def view(self) -> Tables: ...
    async def propose(self, changes: Iterable[Change]) -> int: ...


class FollowedStore(StorePort, Protocol):
    """What a loop of the leader needs of it, that looks again after each commit."""

    def subscribe(self, listener: Callable[[int, tuple[Event, ...]], None], /) -> Callable[[], None]: ...


@dataclass(frozen=True, slots=True)
class Writer:
    """The leader's means to change something."""

    store: StorePort
    raft: RaftPort
    ids: IdSource
    clock: Clock
    manager_changes: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from the look at the managers' majority until what it allowed is committed, by all that take one away."""


def cluster_of(writer: Writer) -> Cluster:
    """The cluster object. Raises Unavailable before it is known here."""
    cluster = writer.store.view.cluster
    if cluster is None:
        raise Unavailable("this manager does not know its swarm yet: try again in a moment")
    return cluster


def check_read_version(kind: str, object_id: str, spec_version: int, read: int, current: int) -> None:
    """Refuse a new spec that was made from an older one: the version read must not be before the spec's last change."""
    if read == 0:
        raise InvalidArgument(f"the change of {kind} {object_id} does not say which version it read")
    if not spec_version <= read <= current:
        raise OutOfSequence(
            f"update out of sequence: the spec of {kind} {object_id} changed at version {spec_version}, "
            f"and the change was made from version {read}"
        )


async def retried(attempt: Callable[[], Awaitable[R]]) -> R:
    """For changes that hold although the object moved, which the attempt decides each time: read and try again."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except OutOfSequence:
            continue
    return await attempt()
