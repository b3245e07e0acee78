"""The flags of `service create` and `service update`, declared once.

Each module of `options` has the flags of one part of the specification: SHARED (both commands), CREATE and UPDATE
(lists). Single values come as None when they were not given, so that `service.build.apply` serves both commands.
"""

from __future__ import annotations

from typing import Any

from pyswarm_cli.service.options import (
    container,
    health,
    image,
    modes,
    networking,
    placement,
    policy,
    resources,
    rollout,
    service,
)
from pyswarm_cli.service.options.kinds import Decorator

SCALARS: list[Decorator[Any]] = [
    *container.SHARED,
    *health.SHARED,
    *image.SHARED,
    *modes.SHARED,
    *networking.SHARED,
    *placement.SHARED,
    *policy.SHARED,
    *resources.SHARED,
    *rollout.SHARED,
    *service.SHARED,
]

CREATE_LISTS: list[Decorator[Any]] = [
    *container.CREATE,
    *networking.CREATE,
    *placement.CREATE,
    *resources.CREATE,
    *service.CREATE,
]

UPDATE_LISTS: list[Decorator[Any]] = [
    *container.UPDATE,
    *networking.UPDATE,
    *placement.UPDATE,
    *policy.UPDATE,
    *resources.UPDATE,
    *service.UPDATE,
]


def declared(options: list[Decorator[Any]]) -> Decorator[Any]:
    """Put a list of options on a command, in that order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
