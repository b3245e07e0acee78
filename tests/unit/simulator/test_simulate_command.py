"""`pyswarm simulate soak`: what it prints, its exit code, the trace it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pyswarm_cli.commands.simulate import soak
from pyswarm_simulator.mutants import consensus
from pyswarm_simulator.planting import MUTANTS


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_seeds_that_violate_nothing(runner: CliRunner) -> None:
    done = runner.invoke(soak, ["--seeds", "2", "--jobs", "1", "--profile", "calm"])
    assert done.exit_code == 0, done.output
    assert "2/2 seeds, 0 failed" in done.output
    assert "nothing violated" in done.output


def test_a_seed_that_fails_is_named_with_what_it_violated(runner: CliRunner) -> None:
    assert consensus  # registers it
    with MUTANTS["skip the fsync"].plant():
        done = runner.invoke(soak, ["--seeds", "1", "--jobs", "1", "--profile", "power"])
    assert done.exit_code == 1
    assert "seed 0 (power): " in done.output
    assert "no majority has it on disk" in done.output


def test_a_trace_has_a_line_per_event_and_ends_with_the_verdict(runner: CliRunner, tmp_path: Path) -> None:
    done = runner.invoke(soak, ["--trace", "3", "--profile", "calm"])
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "seed-3-calm.trace").read_text().splitlines()
    assert any("LEADER" in line for line in lines)
    assert lines[-1] == "# nothing was violated"
