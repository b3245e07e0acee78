"""When to ask a container how it is, and what the answers mean. Pure; docker's rules with one difference.

As in docker: a failed probe counts only after the start period or once the container has been healthy; `retries`
failures in a row are unhealthy. Different: until the first success it asks more often than every interval, so that a
task whose check has a long interval is not kept from RUNNING by it; of those early failures one per interval counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyswarm_common.model import HealthCheck
from pyswarm_common.probe_targets import HttpTarget, TcpTarget, http_target, tcp_target

_DEFAULT_INTERVAL_S = 30.0
_DEFAULT_TIMEOUT_S = 30.0
_DEFAULT_RETRIES = 3
_FIRST_DELAY_S = 0.1
_LONGEST_EARLY_DELAY_S = 5.0


@dataclass(frozen=True, slots=True)
class Command:
    """To be run in the container; healthy when it exits with 0."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """A health check with docker's defaults filled in."""

    what: Command | HttpTarget | TcpTarget
    interval_s: float
    timeout_s: float
    retries: int
    start_period_s: float
    start_interval_s: float = 0.0  # 0: not given


@dataclass(frozen=True, slots=True)
class Health:
    started_at: float
    healthy: bool = False
    failures: int = 0
    last_counted_at: float | None = None
    early_delay_s: float = _FIRST_DELAY_S


def probe_plan(spec: HealthCheck | None, image: HealthCheck | None) -> ProbePlan | None:
    """The service's check, else the image's; None when there is none or it is switched off."""
    check = spec if spec is not None and spec.test else image
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    what = _probe(check.test)
    if what is None:
        return None
    numbers = spec or check
    return ProbePlan(
        what=what,
        interval_s=numbers.interval_s or _DEFAULT_INTERVAL_S,
        timeout_s=numbers.timeout_s or _DEFAULT_TIMEOUT_S,
        retries=numbers.retries or _DEFAULT_RETRIES,
        start_period_s=numbers.start_period_s,
        start_interval_s=numbers.start_interval_s,
    )


def _probe(test: tuple[str, ...]) -> Command | HttpTarget | TcpTarget | None:
    kind, rest = test[0], test[1:]
    if not rest:
        return None
    match kind:
        case "HTTP":
            return http_target(rest[0])
        case "TCP":
            return tcp_target(rest[0])
        case "CMD-SHELL":
            return Command(("/bin/sh", "-c", rest[0]))
        case "CMD":
            return Command(rest)
        case _:  # of a newer docker: what we cannot ask is no check
            return None


def next_delay_s(plan: ProbePlan, health: Health, now: float) -> float:
    """How long to wait before the next probe."""
    if health.healthy:
        return plan.interval_s
    if plan.start_interval_s and now - health.started_at < plan.start_period_s:
        return plan.start_interval_s
    return min(plan.interval_s, health.early_delay_s)


def after_probe(plan: ProbePlan, health: Health, *, succeeded: bool, now: float) -> Health:
    if succeeded:
        return replace(health, healthy=True, failures=0)
    if health.healthy:
        return replace(health, failures=health.failures + 1)
    longer = min(health.early_delay_s * 2, _LONGEST_EARLY_DELAY_S)
    last = health.last_counted_at if health.last_counted_at is not None else health.started_at
    if now - health.started_at < plan.start_period_s or now - last < plan.interval_s:
        return replace(health, early_delay_s=longer)
    return replace(health, early_delay_s=longer, failures=health.failures + 1, last_counted_at=now)


def is_unhealthy(plan: ProbePlan, health: Health) -> bool:
    return health.failures >= plan.retries
