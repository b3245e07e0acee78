"""Flags of jobs, schedules and autoscaling, and what is shown of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pyswarm_cli.parse.autoscale import NO_AUTOSCALE, autoscale
from pyswarm_cli.service.job_progress import JobProgress
from pyswarm_cli.service.progress import Outcome
from pyswarm_cli.views import modes
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import (
    AutoscaleSpec,
    CronRun,
    CronRunState,
    CronSpec,
    CronStatus,
    JobSpec,
    JobStatus,
    Service,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskState,
    TaskStatus,
)


def test_autoscale_flags() -> None:
    assert autoscale("min=2,max=20,cpu=70") == AutoscaleSpec(min_replicas=2, max_replicas=20, cpu_percent=70)
    full = autoscale("min=1, max=3, cpu=70%, memory=80, down-window=5m, up-window=30s")
    assert full == AutoscaleSpec(
        min_replicas=1,
        max_replicas=3,
        cpu_percent=70,
        memory_percent=80,
        scale_down_window_s=300.0,
        scale_up_window_s=30.0,
    )
    assert autoscale("none") is NO_AUTOSCALE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "min=1",
        "min=1,max=2",
        "max=2,cpu=50",
        "min=1,max=2,cpu=50,cpu=60",
        "min=1,max=2,rps=50",
        "min=-1,max=2,cpu=5",
        "min=1,max=2,cpu=5,down-window=soon",
        "min=1,max=2,cpu=5" + "," * 300,
    ],
)
def test_autoscale_flags_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        autoscale(text)


@given(st.one_of(st.text(), st.text(alphabet="minaxcpu=,0123456789%-wdo", max_size=60)))
def test_every_text_is_autoscaling_or_refused(text: str) -> None:
    try:
        found = autoscale(text)
    except InvalidArgument:
        return
    assert isinstance(found, AutoscaleSpec)


JOB = Service(
    id="s",
    spec=ServiceSpec(name="job", mode=ServiceMode.REPLICATED_JOB, job=JobSpec(max_concurrent=2, total_completions=3)),
)


def task(slot: int, state: TaskState, iteration: int = 1) -> Task:
    return Task(
        id=f"t{slot}-{iteration}",
        service_id="s",
        service_name="job",
        slot=slot,
        job_iteration=iteration,
        desired_state=TaskState.RUNNING,
        status=TaskStatus(state=state),
    )


def progress(status: JobStatus, *tasks: Task, service: Service = JOB, run: int = 0) -> JobProgress:
    return JobProgress(replace(service, job_status=status), run, {task.id: task for task in tasks})


def test_progress_of_a_job_as_docker_tells_it() -> None:
    going = progress(JobStatus(iteration=1, succeeded=1), task(1, TaskState.COMPLETE), task(2, TaskState.RUNNING))
    picture = going.look(0.0)
    assert picture.overall == "job progress: 1 out of 3 complete"
    assert [(line.label, line.text) for line in picture.lines] == [
        ("active tasks", "1 out of 2 tasks"),
        ("1/3", "complete"),
        ("2/3", "running"),
    ]
    assert picture.outcome is Outcome.GOING


def test_a_job_is_over_when_the_managers_say_so() -> None:
    done = progress(JobStatus(iteration=1, completed_at=5.0, succeeded=3)).look(0.0)
    assert (done.verify, done.outcome) == ("job complete", Outcome.CONVERGED)
    failed = progress(JobStatus(iteration=1, completed_at=5.0, succeeded=1, failed=2)).look(0.0)
    assert (failed.message, failed.outcome) == ("job failed: 2 tasks gave up", Outcome.FAILED)


def test_a_job_that_is_stopped_is_waited_for_until_nothing_of_it_runs() -> None:
    stopped = replace(JOB, spec=replace(JOB.spec, stopped=True))
    going = progress(JobStatus(iteration=1), task(1, TaskState.RUNNING), service=stopped).look(0.0)
    assert going.outcome is Outcome.GOING
    still = progress(JobStatus(iteration=1), task(1, TaskState.SHUTDOWN), service=stopped).look(0.0)
    assert (still.verify, still.outcome) == ("job stopped", Outcome.CONVERGED)


def test_tasks_of_another_run_are_not_shown() -> None:
    picture = progress(JobStatus(iteration=2), task(1, TaskState.COMPLETE, 1), task(1, TaskState.STARTING, 2)).look(0.0)
    assert [line.text for line in picture.lines] == ["0 out of 2 tasks", "starting"]


CRON = Service(
    id="c",
    spec=ServiceSpec(name="cron", mode=ServiceMode.CRON, cron=CronSpec(schedule="@every 60s")),
    cron_status=CronStatus(
        last_tick_at=1060.0,
        runs=(
            CronRun(1000.0, 1001.0, 1011.0, 1, CronRunState.COMPLETE, succeeded=1),
            CronRun(1060.0, 0.0, 0.0, 0, CronRunState.SKIPPED, "run 1 was still going"),
            CronRun(0.0, 1062.0, 0.0, 2, CronRunState.RUNNING),
        ),
    ),
)


def test_a_run_that_was_asked_for_is_followed_and_a_schedule_is_not() -> None:
    assert progress(JobStatus(iteration=2), service=CRON).look(0.0).outcome is Outcome.CONVERGED
    assert progress(JobStatus(iteration=2), service=CRON, run=2).look(0.0).outcome is Outcome.GOING
    assert progress(JobStatus(iteration=2), service=CRON, run=1).look(0.0).outcome is Outcome.CONVERGED


def test_runs_of_a_cron_service_the_latest_first() -> None:
    rows = modes.runs(CRON, now=1100.0)
    assert [(row["ID"], row["State"], row["Duration"], row["Completed"]) for row in rows] == [
        ("2", "Running", "38 seconds", "0/1"),
        ("-", "Skipped", "-", "-"),
        ("1", "Complete", "10 seconds", "1/1"),
    ]
    assert modes.next_tick(CRON) == 1120.0
    assert modes.next_tick(replace(CRON, spec=replace(CRON.spec, stopped=True))) is None


def test_inspect_in_words() -> None:
    lines = list(modes.modes_in_words(modes.status_json(CRON)))
    assert lines[0].startswith(" Next Run:\t1970-01-01T00:18:40")
    assert lines[2].endswith("run 2, running")
    assert lines[3].endswith("no run, skipped (run 1 was still going)")
