"""What `inspect` and `service runs` show of jobs, schedules and autoscaling. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyswarm_cli.output.rows import Columns, Row
from pyswarm_cli.output.words import ago, human_duration, iso_time
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    AutoscaleSpec,
    AutoscaleStatus,
    CronRun,
    CronRunState,
    CronSpec,
    CronStatus,
    JobStatus,
    Service,
    ServiceMode,
    ServiceSpec,
)
from pyswarm_common.model.sizes import job_size
from pyswarm_common.schedule import parse_schedule

Json = dict[str, Any]
_NANO = 1_000_000_000

RUN_COLUMNS = Columns(
    headings={
        "ID": "RUN",
        "Tick": "SCHEDULED",
        "Started": "STARTED",
        "Duration": "DURATION",
        "State": "STATE",
        "Completed": "COMPLETED",
        "Message": "MESSAGE",
    },
    table=("ID", "Tick", "Started", "Duration", "State", "Completed", "Message"),
)


# ---- inspect


def mode_json(spec: ServiceSpec) -> Json:
    """As docker has it; a cron service has what its runs complete, and when."""
    size = job_size(spec)
    match spec.mode:
        case ServiceMode.REPLICATED:
            return {"Replicated": {"Replicas": 1 if spec.replicas is None else spec.replicas}}
        case ServiceMode.GLOBAL:
            return {"Global": {}}
        case ServiceMode.REPLICATED_JOB:
            return {"ReplicatedJob": {"MaxConcurrent": size.concurrent, "TotalCompletions": size.total}}
        case ServiceMode.GLOBAL_JOB:
            return {"GlobalJob": {}}
        case ServiceMode.CRON:
            sizes = {"MaxConcurrent": size.concurrent, "TotalCompletions": size.total}
            return {"Cron": {**_cron_json(spec.cron or CronSpec()), **sizes}}


def _cron_json(cron: CronSpec) -> Json:
    return {
        "Schedule": cron.schedule,
        "TimeZone": cron.time_zone or "UTC",
        "Overlap": cron.overlap.name.lower(),
        **({"StartingDeadline": round(cron.starting_deadline_s * _NANO)} if cron.starting_deadline_s else {}),
        **({"HistoryLimit": cron.history_limit} if cron.history_limit else {}),
    }


def autoscale_json(spec: AutoscaleSpec) -> Json:
    """What the number of tasks follows."""
    out: Json = {"Min": spec.min_replicas, "Max": spec.max_replicas}
    for name, value in (("CPU", spec.cpu_percent), ("Memory", spec.memory_percent)):
        if value:
            out[name] = value
    for name, seconds in (("DownWindow", spec.scale_down_window_s), ("UpWindow", spec.scale_up_window_s)):
        if seconds is not None:
            out[name] = round(seconds * _NANO)
    return out


def status_json(service: Service) -> Json:
    """How jobs and autoscaling stand."""
    out: Json = {}
    if service.job_status is not None:
        out["JobStatus"] = _job_status_json(service.job_status)
    if service.cron_status is not None:
        out["CronStatus"] = _cron_status_json(service)
    if service.autoscale_status is not None:
        out["AutoscaleStatus"] = _autoscale_status_json(service.autoscale_status)
    return out


def _job_status_json(status: JobStatus) -> Json:
    return {
        "JobIteration": {"Index": status.iteration},
        "LastExecution": iso_time(status.started_at),
        "CompletedAt": iso_time(status.completed_at),
        "Succeeded": status.succeeded,
        "Failed": status.failed,
    }


def _cron_status_json(service: Service) -> Json:
    status = service.cron_status or CronStatus()
    upcoming = next_tick(service)
    return {
        "NextTick": iso_time(upcoming) if upcoming else "",
        "LastTick": iso_time(status.last_tick_at),
        "Runs": [
            {
                "Iteration": run.iteration,
                "Tick": iso_time(run.tick_at),
                "StartedAt": iso_time(run.started_at),
                "CompletedAt": iso_time(run.completed_at),
                "State": run.state.name.lower(),
                "Succeeded": run.succeeded,
                "Failed": run.failed,
                "Message": run.message,
            }
            for run in status.runs
        ],
    }


def _autoscale_status_json(status: AutoscaleStatus) -> Json:
    return {
        "Replicas": status.replicas,
        "Decisions": [
            {
                "At": iso_time(decision.decided_at),
                "From": decision.from_replicas,
                "To": decision.to_replicas,
                "Reason": decision.reason,
            }
            for decision in status.decisions
        ],
    }


def next_tick(service: Service) -> float | None:
    """When a cron service's next run is due; None if there is none, or it cannot be told."""
    cron, status = service.spec.cron, service.cron_status
    if cron is None or status is None or service.spec.stopped:
        return None
    try:
        return parse_schedule(cron.schedule, cron.time_zone).after(status.last_tick_at, status.last_tick_at)
    except InvalidArgument:  # a newer manager's schedule
        return None


# ---- inspect --pretty


def modes_in_words(service: Json) -> Iterator[str]:
    """Lines of `--pretty` from what `inspect` says of jobs, schedules and autoscaling."""
    cron = service.get("CronStatus")
    if cron is not None:
        yield f" Next Run:\t{cron['NextTick'] or 'none'}"
        yield "Runs:"
        yield from (f" {_run_in_words(run)}" for run in reversed(cron["Runs"]))
    elif (job := service.get("JobStatus")) is not None:
        yield "JobStatus:"
        yield f" Iteration:\t{job['JobIteration']['Index']}"
        yield f" Last Run:\t{job['LastExecution']}"
        yield f" Succeeded:\t{job['Succeeded']}"
        yield f" Failed:\t{job['Failed']}"
    if (scaling := service.get("AutoscaleStatus")) is not None:
        yield "Autoscale:"
        yield f" Replicas:\t{scaling['Replicas']}"
        for decision in reversed(scaling["Decisions"]):
            yield f" {decision['At']}: {decision['From']} to {decision['To']} ({decision['Reason']})"


def _run_in_words(run: Json) -> str:
    number = f"run {run['Iteration']}" if run["Iteration"] else "no run"
    when = run["StartedAt"] if run["Iteration"] else run["Tick"]
    return f"{when}: {number}, {run['State']}" + (f" ({run['Message']})" if run["Message"] else "")


# ---- runs


def runs(service: Service, now: float) -> list[Row]:
    """The runs of a cron service, the latest first; of a job its last one."""
    size = job_size(service.spec)
    if service.cron_status is not None:
        return [_run_row(run, size.total, now) for run in reversed(service.cron_status.runs)]
    status = service.job_status
    if status is None:
        return []
    state = CronRunState.RUNNING
    if status.completed_at:
        state = CronRunState.FAILED if status.failed else CronRunState.COMPLETE
    run = CronRun(
        started_at=status.started_at,
        completed_at=status.completed_at,
        iteration=status.iteration,
        state=state,
        succeeded=status.succeeded,
        failed=status.failed,
    )
    return [_run_row(run, 0 if service.spec.mode is ServiceMode.GLOBAL_JOB else size.total, now)]


def _run_row(run: CronRun, total: int, now: float) -> Row:
    end = run.completed_at or now
    return {
        "ID": str(run.iteration) if run.iteration else "-",
        "Tick": iso_time(run.tick_at) if run.tick_at else "-",
        "Started": ago(run.started_at, now) if run.started_at else "-",
        "Duration": human_duration(max(0.0, end - run.started_at)) if run.started_at else "-",
        "State": run.state.name.capitalize(),
        "Completed": "-" if not run.iteration else f"{run.succeeded}/{total}" if total else str(run.succeeded),
        "Message": run.message,
    }
