"""Flags of limits and reservations."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.params import Parsed
from pyswarm_cli.parse import containers, placement
from pyswarm_cli.service.options.kinds import (
    COUNT,
    CPUS,
    SIZE,
    SWAP,
    Decorator,
    listed,
    option,
)

SHARED: list[Decorator[Any]] = [
    option("--limit-cpu", type_=CPUS, help_="Limit CPUs"),
    option("--limit-memory", type_=SIZE, help_="Limit memory"),
    option("--limit-pids", type_=COUNT, help_="Limit the number of processes (0: no limit)"),
    option("--memory-swap", type_=SWAP, help_="Limit memory and swap together (-1: swap without limit)"),
    option(
        "--memory-swappiness",
        type_=Parsed("int", containers.swappiness),
        help_="How readily memory is swapped (0 to 100, -1: as the node has it)",
    ),
    option("--reserve-cpu", type_=CPUS, help_="Reserve CPUs"),
    option("--reserve-memory", type_=SIZE, help_="Reserve memory"),
    option("--reserve-pids", type_=COUNT, help_="Reserve processes"),
]

GENERIC = Parsed("kind=count", placement.generic_resource)

CREATE: list[Decorator[Any]] = [
    listed("--generic-resource", type_=GENERIC, help_="User defined resources (gpu=2)"),
]

UPDATE: list[Decorator[Any]] = [
    listed("--generic-resource-add", type_=GENERIC, help_="Add a generic resource"),
    listed("--generic-resource-rm", help_="Remove a generic resource by its kind"),
]
