"""Flags of jobs, schedules and autoscaling."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.params import Parsed
from pyswarm_cli.parse.autoscale import autoscale
from pyswarm_cli.service.options.kinds import COUNT, DURATION, Decorator, option

MODES = ["replicated", "global", "replicated-job", "global-job", "cron"]

SHARED: list[Decorator[Any]] = [
    option(
        "--max-concurrent", type_=COUNT, help_="Number of job tasks to run concurrently (default equal to --replicas)"
    ),
    option("--schedule", help_='When a cron service runs: "*/5 * * * *", @hourly, "@every 90s"'),
    option("--time-zone", help_='Of the schedule, as "Europe/Berlin" (default UTC)'),
    option(
        "--overlap",
        type_=click.Choice(["forbid", "allow", "replace"]),
        help_="When a run is due while one is going (default forbid)",
    ),
    option("--starting-deadline", type_=DURATION, help_="Runs missed by more than this are skipped (default 5m)"),
    option("--run-history", type_=COUNT, help_="Runs of a cron service that are kept (default 10)"),
    option(
        "--autoscale",
        type_=Parsed("autoscale", autoscale),
        help_='"min=2,max=20,cpu=70[,memory=80][,down-window=5m][,up-window=30s]", or none',
    ),
]
