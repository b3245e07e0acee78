"""What goes with a service's mode, in docker's words where docker has them; and runs that somebody asks for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pyswarm_common.errors import FailedPrecondition
from pyswarm_common.model import (
    AutoscaleSpec,
    ContainerSpec,
    CronRunState,
    CronSpec,
    CronStatus,
    JobSpec,
    Node,
    NodeState,
    NodeStatus,
    OverlapPolicy,
    ResourceRequirements,
    Resources,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
    UpdateConfig,
)
from pyswarm_manager.api.control import count_tasks
from pyswarm_manager.api.jobs import another_run
from pyswarm_manager.api.validate import check_service_spec
from pyswarm_manager.store.tables import Tables, slot_key

TASK = TaskSpec(container=ContainerSpec(image="busybox"), restart=RestartPolicy(condition=RestartCondition.ON_FAILURE))
WEB = ServiceSpec(name="web", task=replace(TASK, restart=RestartPolicy()))
JOB = ServiceSpec(name="job", mode=ServiceMode.REPLICATED_JOB, job=JobSpec(total_completions=5), task=TASK)
EACH = ServiceSpec(name="each", mode=ServiceMode.GLOBAL_JOB, task=TASK)
CRON = ServiceSpec(name="cron", mode=ServiceMode.CRON, cron=CronSpec(schedule="@daily"), task=TASK)
LIMITED = replace(TASK, resources=ResourceRequirements(limits=Resources(nano_cpus=10**9, memory_bytes=1 << 30)))
SCALE = AutoscaleSpec(min_replicas=1, max_replicas=5, cpu_percent=70, memory_percent=80)
SCALED = replace(WEB, task=LIMITED, autoscale=SCALE)


@pytest.mark.parametrize(
    "spec",
    [
        JOB,
        replace(JOB, job=None),
        replace(JOB, job=JobSpec(max_concurrent=0, total_completions=0)),
        replace(JOB, task=replace(TASK, restart=RestartPolicy(condition=RestartCondition.NONE))),
        EACH,
        CRON,
        replace(CRON, cron=CronSpec(schedule="*/5 * * * *", time_zone="Europe/Berlin", overlap=OverlapPolicy.ALLOW)),
        replace(CRON, job=JobSpec(max_concurrent=2, total_completions=10)),
        SCALED,
        replace(SCALED, autoscale=replace(SCALE, memory_percent=0, scale_down_window_s=0.0)),
    ],
)
def test_good_specs(spec: ServiceSpec) -> None:
    assert list(check_service_spec(spec)) == []


@pytest.mark.parametrize(
    ("spec", "path", "sentence"),
    [
        (replace(JOB, update=UpdateConfig()), "update", "Jobs may not have an update config"),
        (replace(EACH, rollback=UpdateConfig()), "rollback", "Jobs may not have an update config"),
        (replace(JOB, task=WEB.task), "task.restart.condition", 'restart condition "any" cannot be used with jobs'),
        (replace(EACH, replicas=2), "replicas", "replicas can only be used with replicated or replicated-job mode"),
        (replace(JOB, replicas=2), "replicas", "the number of tasks of a job is its job.total_completions"),
        (replace(EACH, job=JobSpec(max_concurrent=1)), "job", "max-concurrent can only be used with replicated-job"),
        (replace(WEB, job=JobSpec(max_concurrent=1)), "job", "max-concurrent can only be used with replicated-job"),
        (replace(JOB, job=JobSpec(total_completions=10**9)), "job.total_completions", "between 0 and 100000"),
        (replace(JOB, job=JobSpec(max_concurrent=10**9)), "job.max_concurrent", "between 0 and 100000"),
        (replace(CRON, job=JobSpec(total_completions=5000)), "job.total_completions", "between 0 and 1000"),
        (replace(CRON, job=JobSpec(max_concurrent=5000)), "job.max_concurrent", "between 0 and 1000"),
        (replace(CRON, cron=None), "cron.schedule", "a cron service needs a schedule"),
        (replace(CRON, cron=CronSpec(schedule="daily")), "cron.schedule", 'invalid schedule "daily"'),
        (replace(CRON, cron=CronSpec(schedule="@daily", time_zone="Mars")), "cron.schedule", "unknown time zone"),
        (replace(CRON, cron=CronSpec(schedule="@daily", history_limit=101)), "cron.history_limit", "at most 100"),
        (replace(WEB, cron=CronSpec(schedule="@daily")), "cron", "a schedule can only be used with cron mode"),
        (replace(JOB, autoscale=SCALE, task=LIMITED), "autoscale", "can only be used with replicated mode"),
        (replace(SCALED, autoscale=replace(SCALE, min_replicas=0)), "autoscale.min_replicas", "min must be between 1"),
        (replace(SCALED, autoscale=replace(SCALE, max_replicas=0)), "autoscale.max_replicas", "between min and"),
        (
            replace(SCALED, autoscale=AutoscaleSpec(min_replicas=1, max_replicas=2)),
            "autoscale.cpu_percent",
            "a percentage of cpu or memory",
        ),
        (replace(SCALED, task=WEB.task), "autoscale.cpu_percent", "give --limit-cpu"),
        (replace(SCALED, task=WEB.task), "autoscale.memory_percent", "give --limit-memory"),
        (replace(SCALED, autoscale=replace(SCALE, cpu_percent=5000)), "autoscale.cpu_percent", "1000 percent"),
        (
            replace(SCALED, autoscale=replace(SCALE, scale_up_window_s=float("nan"))),
            "autoscale.scale_up_window_s",
            "between 0 and 2h",
        ),
    ],
)
def test_bad_specs(spec: ServiceSpec, path: str, sentence: str) -> None:
    found = dict(check_service_spec(spec))
    assert sentence in found[path]


def test_another_run_of_a_job_and_of_a_cron_service() -> None:
    job = another_run(Service(id="j", spec=JOB), 5.0)
    assert job.job_status is not None
    assert (job.job_status.iteration, job.job_status.started_at) == (1, 5.0)
    cron = another_run(Service(id="c", spec=CRON, cron_status=CronStatus(last_tick_at=4.0)), 5.0)
    assert cron.cron_status is not None
    assert [run.state for run in cron.cron_status.runs] == [CronRunState.RUNNING]
    assert cron.cron_status.last_tick_at == 4.0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (WEB, "is no job"),
        (replace(JOB, stopped=True), "is stopped: start it with `pyswarm service start job` first"),
        (replace(CRON, stopped=True), "is stopped"),
    ],
)
def test_what_cannot_be_run(spec: ServiceSpec, words: str) -> None:
    with pytest.raises(FailedPrecondition, match=words):
        another_run(Service(id="s", spec=spec), 5.0)


@pytest.mark.parametrize(
    ("state", "running"), [(NodeState.READY, 1), (NodeState.SUSPECT, 1), (NodeState.UNKNOWN, 1), (NodeState.DOWN, 0)]
)
def test_a_global_task_on_a_node_that_is_down_does_not_count_as_running(state: NodeState, running: int) -> None:
    """It stays with its node, so nothing else takes it out of the numbers."""
    service = Service(id="s", spec=replace(WEB, mode=ServiceMode.GLOBAL))
    task = Task(
        id="t",
        service_id="s",
        node_id="n",
        desired_state=TaskState.RUNNING,
        status=TaskStatus(state=TaskState.RUNNING),
    )
    node = Node(id="n", status=NodeStatus(state=state))
    tables = Tables(nodes={"n": node}, slots={"s": {slot_key(task): (task,)}})
    counts = count_tasks(tables, service)
    assert (counts.running, counts.desired) == (running, 1)
