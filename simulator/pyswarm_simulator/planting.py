"""Planting bugs, so that the simulator can show that it would find them; the bugs themselves are in `mutants`.

Each is a context that breaks the product while it lasts, and puts it right at its end. A mutant names the profile under
which it is found soonest, and within how many seeds it must be: several times as many as it takes on average, since
every change of the product throws the dice anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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


def hunt(bug: PlantedBug) -> Outcome | None:
    """The first run that finds it, and finds nothing without it; None if none of its seeds does."""
    for seed in range(bug.seeds):
        profile = profile_of(seed, bug.profile)
        outcome = run(seed, profile, bug.plant)
        if not outcome.ok and run(seed, profile).ok:
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
