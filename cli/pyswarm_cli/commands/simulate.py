"""`pyswarm simulate …`: thin commands around `pyswarm_simulator`, which is imported only here. No daemon is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pyswarm_cli.failures import Silent
from pyswarm_simulator.profile import NAMES
from pyswarm_simulator.soak import Soak, run_quietly, save_trace, soak_seeds


@click.command(help="Run the whole cluster in virtual time under faults, seed after seed.")
@click.option("--seeds", type=click.IntRange(1), default=1000, show_default=True, help="How many")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1, 256), default=os.cpu_count() or 1, help="Processes [one per core]")
@click.option("--profile", type=click.Choice(NAMES), help="One kind of weather [each seed has its own]")
@click.option("--trace", type=click.IntRange(0), metavar="SEED", help="Run this seed only, and write what happened")
def soak(seeds: int, first_seed: int, jobs: int, profile: str | None, trace: int | None) -> None:
    """`simulate soak`."""
    if trace is not None:
        _trace(trace, profile)
        return
    failed = soak_seeds(Soak(first_seed, seeds, jobs, profile), click.echo, _progress)
    if sys.stderr.isatty():
        click.echo(err=True)
    if failed:
        click.echo(f"{failed} of {seeds} seeds failed. To see one: pyswarm simulate soak --trace SEED", err=True)
        raise Silent
    click.echo(f"{seeds} seeds, nothing violated.")


def _trace(seed: int, profile: str | None) -> None:
    outcome = run_quietly(seed, profile)
    path = save_trace(outcome, Path.cwd())
    click.echo(f"{len(outcome.trace)} events of seed {seed} ({outcome.profile}) are in {path}")
    if not outcome.ok:
        click.echo(outcome.violation, err=True)
        raise Silent


def _progress(line: str) -> None:
    """On a terminal one line that changes; elsewhere a line each time."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)
    else:
        click.echo(line, err=True)
