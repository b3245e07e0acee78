"""Flags of limits and reservations."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.service.options.kinds import COUNT, CPUS, SIZE, Decorator, option

SHARED: list[Decorator[Any]] = [
    option("--limit-cpu", type_=CPUS, help_="Limit CPUs"),
    option("--limit-memory", type_=SIZE, help_="Limit memory"),
    option("--limit-pids", type_=COUNT, help_="Limit the number of processes (0: no limit)"),
    option("--reserve-cpu", type_=CPUS, help_="Reserve CPUs"),
    option("--reserve-memory", type_=SIZE, help_="Reserve memory"),
]
