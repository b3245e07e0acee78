"""Flags of the service itself: its labels, how many tasks it has."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.service.options.kinds import COUNT, LABEL, Decorator, listed, option

SHARED: list[Decorator[Any]] = [
    option("--replicas", type_=COUNT, help_="Number of tasks"),
]

CREATE: list[Decorator[Any]] = [
    listed("-l", "--label", type_=LABEL, help_="Service labels"),
]

UPDATE: list[Decorator[Any]] = [
    listed("--label-add", type_=LABEL, help_="Add or change a service label"),
    listed("--label-rm", help_="Remove a service label by its key"),
]
