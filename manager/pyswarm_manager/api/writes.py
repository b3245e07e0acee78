"""What every write of the control API shares: the store, ids, and reading again when somebody else was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pyswarm_common.errors import OutOfSequence
from pyswarm_common.ids import IdSource
from pyswarm_manager.api.ports import Clock, RaftPort
from pyswarm_manager.store.changes import Change
from pyswarm_manager.store.tables import Tables

R = TypeVar("R")

ATTEMPTS = 8
"""How often a change that names no version is tried again when the object moves under it."""


class StorePort(Protocol):
    """What the API needs of the store."""

    @property
    def view(self) -> Tables: ...
    async def propose(self, changes: Iterable[Change]) -> int: ...


@dataclass(frozen=True, slots=True)
class Writer:
    """The leader's means to change something."""

    store: StorePort
    raft: RaftPort
    ids: IdSource
    clock: Clock


async def retried(attempt: Callable[[], Awaitable[R]]) -> R:
    """For changes that hold whatever the object's version is, such as a removal: read and try again if it moved."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await attempt()
        except OutOfSequence:
            continue
    return await attempt()
