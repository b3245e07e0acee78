"""Flags of updates, rollbacks and restarts."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.service.options.kinds import COUNT, DURATION, ORDER, RATIO, Decorator, option


def _rollout(kind: str, actions: list[str]) -> list[Decorator[Any]]:
    return [
        option(f"--{kind}-delay", type_=DURATION, help_=f"Delay between {kind}s of tasks (ms|s|m|h) (default 0s)"),
        option(f"--{kind}-failure-action", type_=click.Choice(actions), help_=f"When the {kind} fails (default pause)"),
        option(f"--{kind}-max-failure-ratio", type_=RATIO, help_="Failure rate to tolerate (default 0)"),
        option(f"--{kind}-monitor", type_=DURATION, help_="How long to watch each new task for failure (default 5s)"),
        option(f"--{kind}-order", type_=ORDER, help_="Order of stop and start (default stop-first)"),
        option(f"--{kind}-parallelism", type_=COUNT, help_="Tasks at a time (0: all at once) (default 1)"),
    ]


SHARED: list[Decorator[Any]] = [
    option("--restart-condition", type_=click.Choice(["none", "on-failure", "any"]), help_="(default any)"),
    option("--restart-delay", type_=DURATION, help_="Delay between restarts (ms|s|m|h) (default 5s)"),
    option("--restart-max-delay", type_=DURATION, help_="Longest delay after failures in a row (default 5m)"),
    option("--restart-max-attempts", type_=COUNT, help_="Restarts before giving up (0: no limit)"),
    option("--restart-window", type_=DURATION, help_="Restarts older than this do not count (ms|s|m|h)"),
    *_rollout("rollback", ["pause", "continue"]),
    *_rollout("update", ["pause", "continue", "rollback"]),
]
