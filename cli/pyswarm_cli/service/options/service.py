"""Flags of the service itself: its labels, how many tasks it has."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.params import Parsed
from pyswarm_cli.service.options.kinds import COUNT, LABEL, Decorator, listed, option
from pyswarm_cli.service.parts.dependencies import dependency

DEPENDENCY = Parsed("service[:condition]", dependency)

SHARED: list[Decorator[Any]] = [
    option("--replicas", type_=COUNT, help_="Number of tasks"),
]

CREATE: list[Decorator[Any]] = [
    listed("-l", "--label", type_=LABEL, help_="Service labels"),
    listed("--depends-on", type_=DEPENDENCY, help_="Wait at the start for a service (db:started|healthy|completed)"),
]

UPDATE: list[Decorator[Any]] = [
    listed("--depends-on-add", type_=DEPENDENCY, help_="Add or change a service to wait for"),
    listed("--depends-on-rm", help_="Do not wait for a service"),
    listed("--label-add", type_=LABEL, help_="Add or change a service label"),
    listed("--label-rm", help_="Remove a service label by its key"),
]
