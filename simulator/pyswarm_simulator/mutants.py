"""Bugs to plant, so that the simulator can show that it would find them.

Each is a context that breaks the product while it lasts, and puts it right at its end. A mutant names the profile under
which it is found soonest, and within how many seeds it must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyswarm_manager.raft.core import election
from pyswarm_manager.raft.core.log import RaftLog
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import Entry, HardState, Snapshot
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_simulator.manager import RaftDisk
from pyswarm_simulator.profile import profile_of
from pyswarm_simulator.simulation import Mutant, Outcome, run

MUTANTS: dict[str, PlantedBug] = {}
"""By name."""


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A mutant, and what it takes to find it."""

    name: str
    plant: Mutant
    profile: str
    seeds: int
    """It must be found within so many."""


def planted(
    name: str, profile: str, seeds: int
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """Register a generator that plants a bug, yields, and takes it out."""

    def register(plant: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        MUTANTS[name] = PlantedBug(name, contextmanager(plant), profile, seeds)
        return plant

    return register


def hunt(bug: PlantedBug, first_seed: int = 0) -> Outcome | None:
    """The first run that finds it; None if none of its seeds does."""
    for seed in range(first_seed, first_seed + bug.seeds):
        outcome = run(seed, profile_of(seed, bug.profile), bug.plant)
        if not outcome.ok:
            return outcome
    return None


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute is another for a while."""
    original = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


# -- consensus -----------------------------------------------------------------------------------------------------


@planted("vote twice in a term", "storm", 40)
def _vote_twice() -> Iterator[None]:
    """Whoever asks gets the vote."""
    original = election.answer_request

    def answer_request(state: RaftState, request: Any) -> None:
        state.vote = 0
        original(state, request)

    with replaced(election, "answer_request", answer_request):
        yield


@planted("skip the fsync", "power", 40)
def _skip_fsync() -> Iterator[None]:
    """A write is called done when it has only been written."""

    def save(self: RaftDisk, hard_state: HardState, entries: tuple[Entry, ...], snapshot: Snapshot | None) -> None:
        MemoryStorage.write(self, hard_state, entries, snapshot)

    with replaced(RaftDisk, "save", save):
        yield


@planted("apply before commit", "partitions", 40)
def _apply_before_commit() -> Iterator[None]:
    """What is in the log is taken for committed."""

    def take_committed(self: RaftLog, limit: int) -> tuple[Entry, ...]:
        self.committed = max(self.committed, self.last_index)
        return original(self, limit)

    original = RaftLog.take_committed
    with replaced(RaftLog, "take_committed", take_committed):
        yield


@planted("forget voted_for on restart", "storm", 60)
def _forget_vote() -> Iterator[None]:
    """A restarted member may vote again in the same term."""
    original = MemoryStorage.load

    def load(self: MemoryStorage) -> Any:
        stored = original(self)
        if stored is None:
            return None
        hard = HardState(stored.hard_state.term, 0, stored.hard_state.commit)
        return type(stored)(stored.raft_id, hard, stored.snapshot, stored.entries)

    with replaced(MemoryStorage, "load", load):
        yield


@planted("majority off by one", "partitions", 40)
def _majority_off_by_one() -> Iterator[None]:
    """Half is enough."""
    with replaced(RaftState, "quorum", lambda self: max(1, len(self.voters) // 2)):
        yield
