"""What a health check may be told; docker's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import HealthCheck
from pyswarm_common.probe_targets import http_target, tcp_target
from pyswarm_manager.api.validate.fields import Violation, check_count, check_duration, check_text, shown

MAX_ARGUMENTS = 4096
KINDS = ("NONE", "CMD", "CMD-SHELL", "HTTP", "TCP")
_MIN_HEALTH_PERIOD_S = 0.001
_TARGETS: dict[str, Callable[[str], object]] = {"HTTP": http_target, "TCP": tcp_target}


def check_health(check: HealthCheck) -> Iterator[Violation]:
    """A test of a known kind, and times that can be waited for."""
    yield from check_count(check.test, MAX_ARGUMENTS, "test", "arguments")
    if check.test and check.test[0] not in KINDS:
        yield "test", f"unknown type {shown(check.test[0])} in healthcheck: use {', '.join(KINDS)}"
    elif check.test and check.test[0] in _TARGETS:
        yield from _check_target(check.test[0], check.test[1:])
    elif check.test and check.test[0] == "CMD-SHELL" and len(check.test) != 2:
        yield "test", "a healthcheck of type CMD-SHELL has exactly one command"
    elif check.test == ("CMD",):
        yield "test", "a healthcheck of type CMD needs a command"
    for index, item in enumerate(check.test):
        yield from check_text(item, f"test[{index}]", "healthcheck")
    for path, name, value in (
        ("interval_s", "Interval", check.interval_s),
        ("timeout_s", "Timeout", check.timeout_s),
        ("start_period_s", "StartPeriod", check.start_period_s),
        ("start_interval_s", "StartInterval", check.start_interval_s),
    ):
        yield from check_duration(value, path, f"{name} in Healthcheck")
        if 0 < value < _MIN_HEALTH_PERIOD_S:
            yield path, f"{name} in Healthcheck cannot be less than 1ms"
    if check.retries < 0:
        yield "retries", "Retries in Healthcheck cannot be negative"


def _check_target(kind: str, targets: tuple[str, ...]) -> Iterator[Violation]:
    if len(targets) != 1:
        yield "test", f"a healthcheck of type {kind} has exactly one target"
        return
    try:
        _TARGETS[kind](targets[0])
    except InvalidArgument as error:
        yield "test[1]", str(error)
