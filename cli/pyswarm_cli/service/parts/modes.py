"""Mode, number of tasks, schedule and autoscaling, from flags. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from pyswarm_cli.parse.autoscale import NO_AUTOSCALE
from pyswarm_cli.service.parts.pieces import Options, enum_name, with_given
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    AutoscaleSpec,
    CronSpec,
    JobSpec,
    OverlapPolicy,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
)

_COUNTED = (ServiceMode.REPLICATED, ServiceMode.REPLICATED_JOB, ServiceMode.CRON)
_RUNS = (ServiceMode.REPLICATED_JOB, ServiceMode.CRON)


def create_mode(options: Options) -> ServiceSpec:
    """A spec with nothing but its mode, and what goes with it."""
    mode = ServiceMode[enum_name(str(options["mode"]))]
    spec = ServiceSpec(mode=mode, replicas=1 if mode is ServiceMode.REPLICATED else None)
    if mode in _RUNS:
        spec = replace(spec, job=JobSpec(total_completions=1))
    if mode is ServiceMode.CRON:
        spec = replace(spec, cron=CronSpec())
    return spec


def restart_of_jobs(mode: ServiceMode) -> RestartPolicy:
    """What a service of the mode restarts if no flag says otherwise: a job's task that ended well has done its work."""
    return RestartPolicy(condition=RestartCondition.ON_FAILURE) if mode.is_job else RestartPolicy()


def apply_to_mode(spec: ServiceSpec, options: Options) -> ServiceSpec:
    """The flags that create and update share."""
    _refuse_misplaced(spec.mode, options)
    return replace(
        spec,
        replicas=_replicas(spec, options),
        job=_job(spec, options),
        cron=_cron(spec.cron, options),
        autoscale=_autoscale(spec.autoscale, options["autoscale"]),
    )


def _refuse_misplaced(mode: ServiceMode, options: Options) -> None:
    if options["replicas"] is not None and mode not in _COUNTED:
        raise InvalidArgument("replicas can only be used with replicated or replicated-job mode")
    if options["max_concurrent"] is not None and mode not in _RUNS:
        raise InvalidArgument("max-concurrent can only be used with replicated-job mode")
    if options["replicas_max_per_node"] and mode not in _COUNTED:
        raise InvalidArgument("replicas-max-per-node can only be used with replicated or replicated-job mode")
    for name in ("schedule", "time_zone", "overlap", "starting_deadline", "run_history"):
        if options[name] is not None and mode is not ServiceMode.CRON:
            raise InvalidArgument(f"{name.replace('_', '-')} can only be used with cron mode")
    if options["autoscale"] not in (None, NO_AUTOSCALE) and mode is not ServiceMode.REPLICATED:
        raise InvalidArgument("autoscale can only be used with replicated mode")


def _replicas(spec: ServiceSpec, options: Options) -> int | None:
    if spec.mode is not ServiceMode.REPLICATED or options["replicas"] is None:
        return spec.replicas
    replicas: int = options["replicas"]
    return replicas


def _job(spec: ServiceSpec, options: Options) -> JobSpec | None:
    """--replicas is how many tasks a run completes. As in docker, all of them at a time if nothing else is said."""
    if spec.mode not in _RUNS:
        return spec.job
    return with_given(
        spec.job or JobSpec(), total_completions=options["replicas"], max_concurrent=options["max_concurrent"]
    )


def _cron(cron: CronSpec | None, options: Options) -> CronSpec | None:
    if cron is None:
        return None
    overlap = options["overlap"]
    return with_given(
        cron,
        schedule=options["schedule"],
        time_zone=options["time_zone"],
        overlap=None if overlap is None else OverlapPolicy[enum_name(overlap)],
        starting_deadline_s=options["starting_deadline"],
        history_limit=options["run_history"],
    )


def _autoscale(present: AutoscaleSpec | None, given: AutoscaleSpec | None) -> AutoscaleSpec | None:
    if given is None:
        return present
    return None if given == NO_AUTOSCALE else given
