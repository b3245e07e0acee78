"""Raft in the simulator: safety under faults, convergence after them, the same trace from the same seed.

SEEDS=5000 (and FIRST_SEED=…) runs more. A failure names its seed; `RaftSimulator(seed).run()` repeats it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from raft_simulator import Faults, PlantedBug, RaftSimulator

from pyswarm_manager.raft.core import leader, lease
from pyswarm_manager.raft.core.reads import ReadQueue, WaitingRead
from pyswarm_manager.raft.core.state import RaftState
from pyswarm_manager.raft.core.types import EntryKind
from pyswarm_simulator.checks.violation import Violation

SEEDS = int(os.environ.get("SEEDS", "50"))
FIRST_SEED = int(os.environ.get("FIRST_SEED", "0"))
GROUPS = 10  # of seeds, so that a failure leaves others running

NEVER = 1e6
WEATHERS = (
    Faults(),
    Faults(drop=0.15, duplicate=0.1, slow=0.15, crash_every=0.8, cut_every=0.7, churn_every=2.0, transfer_every=2.0),
    # Leaders that fall as soon as they are elected.
    Faults(crash_every=2.0, cut_every=NEVER, churn_every=NEVER, transfer_every=NEVER, topple=0.7),
    # Partitions, and little else: two members believe that they lead.
    Faults(drop=0, duplicate=0, slow=0, crash_every=20.0, cut_every=0.8, churn_every=NEVER, transfer_every=NEVER),
    # Members come and go.
    Faults(drop=0.02, slow=0.1, crash_every=1.5, cut_every=0.5, churn_every=0.3, transfer_every=1.0),
    # Processes that stand still, and connections that are refused: who holds a lease?
    Faults(drop=0.02, slow=0.15, crash_every=1.0, cut_every=1.0, transfer_every=1.0, freeze_every=0.8, topple=0),
)


def _run(seed: int) -> None:
    simulator = RaftSimulator(seed, WEATHERS[seed % len(WEATHERS)])
    try:
        simulator.run()
    except BaseException as error:
        tail = "\n".join(simulator.trace[-40:])
        raise AssertionError(f"seed {seed}: {error!r}\n{tail}") from error


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.timeout(0 if SEEDS > 500 else 120)
def test_faults_break_nothing_and_the_cluster_converges(group: int) -> None:
    for seed in range(FIRST_SEED + group, FIRST_SEED + SEEDS, GROUPS):
        _run(seed)


def test_without_faults_no_leader_is_ever_replaced() -> None:
    calm = Faults(0, 0, 0, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, slow_disk=0, topple=0)
    simulator = RaftSimulator(7, calm)
    simulator.run()
    assert {m.core.state.term for m in simulator.members.values() if m.core} == {2}
    assert simulator.writes > 300
    assert simulator.reads > 50
    assert simulator.leased_reads > 50


def test_the_same_seed_gives_the_same_trace_under_another_hash_seed() -> None:
    code = (
        "import hashlib; from raft_simulator import RaftSimulator; s = RaftSimulator(3); s.run(4.0);"
        "print(hashlib.sha256('\\n'.join(s.trace).encode()).hexdigest())"
    )
    traces = set()
    for hash_seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True, timeout=60
        )
        traces.add(done.stdout.strip())
    simulator = RaftSimulator(3)
    simulator.run(4.0)
    traces.add(hashlib.sha256("\n".join(simulator.trace).encode()).hexdigest())
    assert len(traces) == 1


# -- the checker finds what it is there to find --------------------------------------------------------------


def _read_without_a_majority(patch: pytest.MonkeyPatch) -> None:
    def confirmed(self: ReadQueue, round_: int) -> list[WaitingRead]:
        released, self._assigned = list(self._assigned), type(self._assigned)()
        return released

    patch.setattr(ReadQueue, "confirmed", confirmed)


def _lease_ignores_the_clock(patch: pytest.MonkeyPatch) -> None:
    """The core's last idea of the time instead of the time of the question."""
    original = lease.holds
    patch.setattr(lease, "holds", lambda state, now_us: original(state, state.now_us))


def _no_noop_before_a_change(patch: pytest.MonkeyPatch) -> None:
    def propose_change(state: RaftState, data: bytes) -> int:
        return leader.propose(state, EntryKind.CONFIG, [data])

    patch.setattr(leader, "propose_change", propose_change)


CORE_BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "read without a majority": _read_without_a_majority,
    "no no-op before a change": _no_noop_before_a_change,
}
SHELL_BUGS = {
    "send before persist": PlantedBug(send_before_persist=True),
    "skip the sync": PlantedBug(skip_sync=True),
}
TRIES = 200


def _is_found(bug: PlantedBug | None = None) -> bool:
    for seed in range(TRIES):
        try:
            RaftSimulator(seed, WEATHERS[seed % len(WEATHERS)], bug).run(8.0)
        except AssertionError:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", CORE_BUGS)
def test_a_bug_planted_in_the_core_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    CORE_BUGS[name](monkeypatch)
    assert _is_found()


@pytest.mark.slow
def test_a_lease_that_ignores_the_clock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _lease_ignores_the_clock(monkeypatch)
    with pytest.raises(Violation, match="a read on"):
        _run_all(WEATHERS[-1])


def _run_all(weather: Faults) -> None:
    for seed in range(TRIES):
        RaftSimulator(seed, weather).run(8.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHELL_BUGS)
def test_a_bug_planted_in_the_shell_is_found(name: str) -> None:
    assert _is_found(SHELL_BUGS[name])
