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
        "start_interval_s": options["health_start_interval"],
        "start_period_s": options["health_start_period"],
        "retries": options["health_retries"],
    }
    test = _test(options)
    given = any(value is not None for value in times.values()) or test is not None
    if options["no_healthcheck"]:
        if given:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return HealthCheck(test=("NONE",))
    if not given:
        return None
    start = HealthCheck() if check is None or check.test == ("NONE",) else check
    return with_given(start, test=test, **times)


def _test(options: Options) -> tuple[str, ...] | None:
    kinds = {"health_cmd": "CMD-SHELL", "health_http": "HTTP", "health_tcp": "TCP"}
    given = [(kind, options[name]) for name, kind in kinds.items() if options[name] is not None]
    if len(given) > 1:
        raise InvalidArgument("only one of --health-cmd, --health-http and --health-tcp can be given")
    # As docker: an empty command is a check that has none, so that the image's holds again.
    return next(((kind, what) if what else () for kind, what in given), None)
