"""Flags of the health check."""

from __future__ import annotations

from typing import Any

import click

from pyswarm_cli.params import Parsed
from pyswarm_cli.parse import containers
from pyswarm_cli.service.options.kinds import (
    COUNT,
    DURATION,
    Decorator,
    option,
)

SHARED: list[Decorator[Any]] = [
    option("--health-cmd", help_="Command to run to check health"),
    option("--health-interval", type_=DURATION, help_="Time between running the check (ms|s|m|h)"),
    option("--health-retries", type_=COUNT, help_="Consecutive failures needed to report unhealthy"),
    option("--health-start-period", type_=DURATION, help_="Start period before failures count (ms|s|m|h)"),
    option(
        "--health-start-interval", type_=DURATION, help_="Time between running the check in the start period (ms|s|m|h)"
    ),
    option(
        "--health-http",
        type_=Parsed("url", containers.health_http),
        help_="Ask over HTTP instead of running a command (http://:8080/path; 2xx and 3xx are healthy)",
    ),
    option(
        "--health-tcp",
        type_=Parsed("port", containers.health_tcp),
        help_="Connect instead of running a command (:8080)",
    ),
    option("--health-timeout", type_=DURATION, help_="Maximum time to allow one check to run (ms|s|m|h)"),
    click.option("--no-healthcheck", is_flag=True, default=None, help="Disable any HEALTHCHECK of the image"),
]
