"""The health check of a container, from flags. Pure."""

from __future__ import annotations

from pyswarm_cli.service.parts.pieces import Options, with_given
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import HealthCheck


def health(check: HealthCheck | None, options: Options) -> HealthCheck | None:
    """The check with what the flags change; None when they change nothing."""
    times = {
        "interval_s": options["health_interval"],
        "timeout_s": options["health_timeout"],
        "start_period_s": options["health_start_period"],
        "retries": options["health_retries"],
    }
    given = any(value is not None for value in times.values()) or options["health_cmd"] is not None
    if options["no_healthcheck"]:
        if given:
            raise InvalidArgument("--no-healthcheck conflicts with the other --health-* flags: give one or the other")
        return HealthCheck(test=("NONE",))
    if not given:
        return None
    command = options["health_cmd"]
    start = HealthCheck() if check is None or check.test == ("NONE",) else check
    return with_given(start, test=None if command is None else ("CMD-SHELL", command), **times)
