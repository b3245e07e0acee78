"""Flags that say who may open connections to a service's tasks."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.service.options.kinds import Decorator, listed

SHARED: list[Decorator[Any]] = [
    listed(
        "--allow-from",
        help_='Let in only this service (or "ingress", published ports; or "none"); may be given often',
    ),
]

UPDATE: list[Decorator[Any]] = [
    listed("--allow-from-add", help_='Let in this service too (or "ingress")'),
    listed("--allow-from-rm", help_='Let this service (or "ingress") in no more; the last one leaves "none"'),
]
