"""The whole cluster in the simulator: safety under faults, convergence after them, the same trace from the same seed.

SEEDS=500 (and FIRST_SEED=…) runs more; for thousands there is `make soak`. A failure names its seed:
`pyswarm simulate soak --trace SEED` repeats it and writes down what happened.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pyswarm_simulator.profile import ROLLOUTS, profile_of
from pyswarm_simulator.soak import run_quietly

SEEDS = int(os.environ.get("SEEDS", "50"))
FIRST_SEED = int(os.environ.get("FIRST_SEED", "0"))
GROUPS = 10  # of seeds, so that a failure leaves others running


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.timeout(0 if SEEDS > 500 else 120)
def test_faults_break_nothing_and_the_cluster_becomes_what_it_must_be(group: int) -> None:
    for seed in range(FIRST_SEED + group, FIRST_SEED + SEEDS, GROUPS):
        outcome = run_quietly(seed)
        assert outcome.ok, f"seed {seed} ({outcome.profile}): {outcome.violation}\n" + "\n".join(outcome.trace[-40:])


@pytest.mark.parametrize("seed", range(4))
def test_services_that_are_never_let_be_become_what_they_must_be(seed: int) -> None:
    """Rolled back, stopped, started, waiting for one another, their tasks restarted and removed; and all the faults."""
    outcome = run_quietly(seed, ROLLOUTS)
    assert outcome.ok, f"seed {seed} ({outcome.profile}): {outcome.violation}\n" + "\n".join(outcome.trace[-40:])


def test_in_good_weather_no_leader_is_replaced_and_everything_asked_for_happens() -> None:
    outcome = run_quietly(7, "calm")
    assert outcome.ok, outcome.violation
    assert sum("LEADER" in line for line in outcome.trace) == 1
    assert outcome.operations > 50
    assert not any("refused" in line for line in outcome.trace)


PRINT_FINGERPRINTS = """
from pyswarm_simulator.soak import run_quietly
print([run_quietly(seed).fingerprint for seed in (0, 1, 3, 6)])
"""


def test_the_same_seed_gives_the_same_trace_under_another_hash_seed() -> None:
    found = set()
    for hash_seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", PRINT_FINGERPRINTS],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=100,
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_every_profile_is_run_by_some_seed() -> None:
    assert {profile_of(seed).name for seed in range(50)} >= {"mixed", "storm", "partitions", "members", "power"}
