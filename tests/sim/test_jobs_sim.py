"""Jobs and schedules in the simulator: every tick once, completions and concurrency never over, whatever befalls.

JOB_SEEDS=200 runs more; `pyswarm simulate soak --profile jobs --seeds N` runs thousands.
"""

from __future__ import annotations

import os

import pytest

from pyswarm_simulator.soak import run_quietly

SEEDS = int(os.environ.get("JOB_SEEDS", "4"))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.timeout(120)
def test_jobs_under_faults(seed: int) -> None:
    outcome = run_quietly(seed, "jobs")
    assert outcome.ok, f"seed {seed}: {outcome.violation}\n" + "\n".join(outcome.trace[-40:])
