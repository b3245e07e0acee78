"""Flags of where tasks may run."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.params import Parsed
from pyswarm_cli.parse import placement
from pyswarm_cli.service.options.kinds import COUNT, PREFERENCE, Decorator, listed, option, switch

AFFINITY = Parsed("affinity", placement.affinity)
TOLERATION = Parsed("toleration", placement.toleration)

SHARED: list[Decorator[Any]] = [
    option(
        "--priority",
        type_=click.IntRange(-1000, 1000),
        help_="Higher goes first, and takes the place of lower where there is none left (-1000 to 1000)",
    ),
    switch("rebalance", help_="Move tasks when a node comes or returns"),
    option("--replicas-max-per-node", type_=COUNT, help_="Tasks per node at most (0: no limit)"),
    option(
        "--strategy",
        type_=click.Choice(["default", "spread", "binpack"]),
        help_="Spread tasks, or fill a node before the next is begun (default: the cluster's)",
    ),
]

CREATE: list[Decorator[Any]] = [
    listed(
        "--affinity", type_=AFFINITY, help_="Be near a service, or with ! away from it (!db,topology=node.labels.zone)"
    ),
    listed("--constraint", help_="Placement constraints (node.role==worker)"),
    listed("--placement-pref", type_=PREFERENCE, help_="Placement preferences (spread=node.labels.KEY)"),
    listed("--toleration", type_=TOLERATION, help_="Taints that the tasks tolerate (KEY[=VALUE][:EFFECT])"),
]

UPDATE: list[Decorator[Any]] = [
    listed("--affinity-add", type_=AFFINITY, help_="Add an affinity"),
    listed("--affinity-rm", type_=AFFINITY, help_="Remove an affinity"),
    listed("--constraint-add", help_="Add a placement constraint"),
    listed("--constraint-rm", help_="Remove a placement constraint"),
    listed("--placement-pref-add", type_=PREFERENCE, help_="Add a placement preference"),
    listed("--placement-pref-rm", type_=PREFERENCE, help_="Remove a placement preference"),
    listed("--toleration-add", type_=TOLERATION, help_="Add a toleration"),
    listed("--toleration-rm", type_=TOLERATION, help_="Remove a toleration"),
]
