"""What belongs to a service's mode: replicas, the size of a job, a schedule, autoscaling."""

from __future__ import annotations

from collections.abc import Iterator

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    AutoscaleSpec,
    CronSpec,
    JobSpec,
    RestartCondition,
    ServiceMode,
    ServiceSpec,
)
from pyswarm_common.model.sizes import cpu_base, memory_base
from pyswarm_common.schedule import parse_schedule
from pyswarm_manager.api.validate.fields import Violation, check_duration, under

MAX_REPLICAS = 100_000
MAX_CRON_COMPLETIONS = 1_000
"""Of one run: all its tasks are kept until it is over."""
MAX_CRON_HISTORY = 100
MAX_PERCENT = 1_000
MAX_WINDOW_S = 2 * 3600.0


def check_mode(spec: ServiceSpec) -> Iterator[Violation]:
    """What the mode asks for, and what does not go with it."""
    yield from _check_replicas(spec)
    if spec.mode.is_job:
        yield from _check_job_service(spec)
    elif spec.job is not None:
        yield "job", "max-concurrent can only be used with replicated-job mode"
    if spec.job is not None:
        yield from under("job", _check_job(spec.job, spec.mode))
    if spec.mode is ServiceMode.CRON:
        yield from under("cron", _check_cron(spec.cron or CronSpec()))
    elif spec.cron is not None:
        yield "cron", "a schedule can only be used with cron mode"
    if spec.autoscale is not None:
        yield from under("autoscale", _check_autoscale(spec.autoscale, spec))


def _check_replicas(spec: ServiceSpec) -> Iterator[Violation]:
    if spec.replicas is None:
        return
    if spec.mode in (ServiceMode.REPLICATED_JOB, ServiceMode.CRON):
        yield "replicas", "the number of tasks of a job is its job.total_completions"
    elif spec.mode is not ServiceMode.REPLICATED:
        yield "replicas", "replicas can only be used with replicated or replicated-job mode"
    elif not 0 <= spec.replicas <= MAX_REPLICAS:
        yield "replicas", f"replicas must be between 0 and {MAX_REPLICAS}"


def _check_job_service(spec: ServiceSpec) -> Iterator[Violation]:
    for path, config in (("update", spec.update), ("rollback", spec.rollback)):
        if config is not None:
            yield path, "Jobs may not have an update config"
    if spec.task.restart.condition is RestartCondition.ANY:
        yield (
            "task.restart.condition",
            'restart condition "any" cannot be used with jobs, whose tasks end: use on-failure or none',
        )


def _check_job(job: JobSpec, mode: ServiceMode) -> Iterator[Violation]:
    if mode is ServiceMode.GLOBAL_JOB:
        yield "", "max-concurrent can only be used with replicated-job mode"
        return
    most = MAX_CRON_COMPLETIONS if mode is ServiceMode.CRON else MAX_REPLICAS
    if job.max_concurrent is not None and not 0 <= job.max_concurrent <= MAX_REPLICAS:
        yield "max_concurrent", f"maximum concurrent jobs must be between 0 and {MAX_REPLICAS}"
    if job.total_completions is not None and not 0 <= job.total_completions <= most:
        yield "total_completions", f"total completed jobs must be between 0 and {most}"
    elif job.total_completions is None and (job.max_concurrent or 0) > most:
        yield "max_concurrent", f"total completed jobs must be between 0 and {most}"


def _check_cron(cron: CronSpec) -> Iterator[Violation]:
    if not cron.schedule:
        yield "schedule", "a cron service needs a schedule"
    else:
        try:
            parse_schedule(cron.schedule, cron.time_zone)
        except InvalidArgument as error:
            yield "schedule", str(error)
    yield from check_duration(cron.starting_deadline_s, "starting_deadline_s", "starting-deadline")
    if not 0 <= cron.history_limit <= MAX_CRON_HISTORY:
        yield "history_limit", f"the history of a cron service holds at most {MAX_CRON_HISTORY} runs"


def _check_autoscale(autoscale: AutoscaleSpec, spec: ServiceSpec) -> Iterator[Violation]:
    least, most = autoscale.min_replicas, autoscale.max_replicas
    if spec.mode is not ServiceMode.REPLICATED:
        yield "", "autoscaling can only be used with replicated mode"
    if not 1 <= least <= MAX_REPLICAS:
        yield "min_replicas", f"autoscale: min must be between 1 and {MAX_REPLICAS}"
    if not least <= most <= MAX_REPLICAS:
        yield "max_replicas", f"autoscale: max must be between min and {MAX_REPLICAS}"
    if not autoscale.cpu_percent and not autoscale.memory_percent:
        yield "cpu_percent", "autoscale needs a percentage of cpu or memory to aim at"
    for path, percent, size, flag in (
        ("cpu_percent", autoscale.cpu_percent, cpu_base(spec.task.resources), "cpu"),
        ("memory_percent", autoscale.memory_percent, memory_base(spec.task.resources), "memory"),
    ):
        if not 0 <= percent <= MAX_PERCENT:
            yield path, f"autoscale: {flag} must be between 1 and {MAX_PERCENT} percent"
        elif percent and not size:
            yield path, f"autoscale by {flag} needs to know what the percentage is of: give --limit-{flag}"
    for path, window_s, flag in (
        ("scale_down_window_s", autoscale.scale_down_window_s, "down-window"),
        ("scale_up_window_s", autoscale.scale_up_window_s, "up-window"),
    ):
        if window_s is not None and not 0 <= window_s <= MAX_WINDOW_S:
            yield path, f"autoscale: {flag} must be between 0 and {MAX_WINDOW_S / 3600:g}h"
