"""Networks that come and go under services and plain containers, in the simulator.

NETWORK_SEEDS=200 runs more; `pyswarm simulate soak --profile networks --seeds N` runs thousands.
"""

from __future__ import annotations

import os

import pytest

from pyswarm_simulator.soak import run_quietly

SEEDS = int(os.environ.get("NETWORK_SEEDS", "4"))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.timeout(180)
def test_networks_under_faults(seed: int) -> None:
    outcome = run_quietly(seed, "networks")
    assert outcome.ok, f"seed {seed}: {outcome.violation}\n" + "\n".join(outcome.trace[-40:])
