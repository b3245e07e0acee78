"""Flags of where tasks may run."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.service.options.kinds import COUNT, PREFERENCE, Decorator, listed, option

SHARED: list[Decorator[Any]] = [
    option("--replicas-max-per-node", type_=COUNT, help_="Tasks per node at most (0: no limit)"),
]

CREATE: list[Decorator[Any]] = [
    listed("--constraint", help_="Placement constraints (node.role==worker)"),
    listed("--placement-pref", type_=PREFERENCE, help_="Placement preferences (spread=node.labels.KEY)"),
]

UPDATE: list[Decorator[Any]] = [
    listed("--constraint-add", help_="Add a placement constraint"),
    listed("--constraint-rm", help_="Remove a placement constraint"),
    listed("--placement-pref-add", type_=PREFERENCE, help_="Add a placement preference"),
    listed("--placement-pref-rm", type_=PREFERENCE, help_="Remove a placement preference"),
]
