"""Many seeds, in as many processes as are asked for: what failed, told as it is found.

Each process runs whole seeds and shares nothing, so that a seed gives the same run wherever it is run.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pyswarm_simulator.profile import profile_of
from pyswarm_simulator.simulation import Outcome, run

PROGRESS_EVERY_S = 1.0
_CHUNK = 4


@dataclass(frozen=True, slots=True)
class Soak:
    """Which seeds, how, and where traces go."""

    first_seed: int = 0
    seeds: int = 1000
    jobs: int = 1
    profile: str | None = None


def run_quietly(seed: int, profile: str | None = None) -> Outcome:
    """One seed, without what the product logs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return run(seed, profile_of(seed, profile))
    finally:
        logging.disable(before)


def _in_worker(seed: int, profile: str | None) -> Outcome:
    return replace(run_quietly(seed, profile), trace=())


def outcomes(soak: Soak) -> Iterator[Outcome]:
    """In the order of the seeds, without their traces."""
    seeds = range(soak.first_seed, soak.first_seed + soak.seeds)
    if soak.jobs == 1:
        for seed in seeds:
            yield _in_worker(seed, soak.profile)
        return
    # Not forked: this process may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(soak.jobs, mp_context=context) as pool:
        yield from pool.map(_in_worker, seeds, [soak.profile] * soak.seeds, chunksize=_CHUNK)


def soak_seeds(soak: Soak, say: Callable[[str], None], progress: Callable[[str], None]) -> int:
    """Run them all; says each failure in full and how far it got now and then. The number of seeds that failed."""
    started = told = time.monotonic()
    failed, virtual_s = 0, 0.0
    for done, outcome in enumerate(outcomes(soak), 1):
        virtual_s += outcome.virtual_s
        if not outcome.ok:
            failed += 1
            say(f"seed {outcome.seed} ({outcome.profile}): {outcome.violation}")
        now = time.monotonic()
        if now - told >= PROGRESS_EVERY_S or done == soak.seeds:
            told = now
            rate = done / (now - started)
            minutes = virtual_s / 60
            progress(f"{done}/{soak.seeds} seeds, {failed} failed, {rate:.1f} seeds/s, {minutes:.0f} virtual minutes")
    return failed


def save_trace(outcome: Outcome, directory: Path) -> Path:
    """One line per event, and what was violated."""
    path = directory / f"seed-{outcome.seed}-{outcome.profile}.trace"
    lines = [*outcome.trace, f"# {outcome.violation or 'nothing was violated'}"]
    path.write_text("\n".join(lines) + "\n")
    return path
