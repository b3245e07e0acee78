"""Services that run to completion, by a schedule, or with as many tasks as their use asks for: as a user sees them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

PERIOD_S = 2.0


@pytest.fixture
def made(cluster: Cluster) -> Iterator[list[str]]:
    """Names of services that the test made; they are removed whatever happens."""
    names: list[str] = []
    yield names
    for name in names:
        cluster.run("n1", "service", "rm", name)


def status_of(cluster: Cluster, name: str, host: str = "n1") -> dict[str, Any]:
    """What `service inspect` says beside the spec; empty while the host cannot say."""
    done = cluster.on(host, "pyswarm", "service", "inspect", name)
    found: dict[str, Any] = json.loads(done.stdout)[0] if done.returncode == 0 else {}
    return found


def column(cluster: Cluster, name: str, template: str) -> str:
    rows = cluster.run("n1", "service", "ls", "--format", f"{{{{.Name}}}} {template}").splitlines()
    return next(row.partition(" ")[2] for row in rows if row.startswith(f"{name} "))


def test_a_job_of_five_completions_two_at_a_time_and_another_run_of_it(cluster: Cluster, made: list[str]) -> None:
    made.append("five")
    flags = ["--name", "five", "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2"]
    told = cluster.run("n1", "service", "create", *flags, IMAGE, "sh", "-c", "sleep 0.5").splitlines()
    assert told[-1] == "job complete"
    assert "job progress: 5 out of 5 complete" in told
    assert not [line for line in told if line.startswith("active tasks: 3")]
    assert column(cluster, "five", "{{.Mode}}: {{.Replicas}}") == "replicated job: 0/2 (5/5 completed)"
    tasks = cluster.run("n1", "service", "ps", "five", "--format", "{{.Name}} {{.DesiredState}} {{.CurrentState}}")
    assert sorted(line.split()[:3] for line in tasks.splitlines()) == [
        [f"five.{slot}", "Complete", "Complete"] for slot in range(1, 6)
    ]
    again = cluster.run("n1", "service", "run", "five").splitlines()
    assert (again[0], again[-1]) == ("five: run 2", "job complete")
    assert status_of(cluster, "five")["JobStatus"]["JobIteration"] == {"Index": 2}


def test_a_job_that_fails_says_so_and_a_job_cannot_be_updated_in_rolls(cluster: Cluster, made: list[str]) -> None:
    made.append("fails")
    flags = ["--name", "fails", "--mode", "replicated-job", "--restart-max-attempts", "1", "--restart-delay", "0s"]
    done = cluster.on("n1", "pyswarm", "service", "create", *flags, IMAGE, "false")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["job failed: 1 task gave up"]
    runs = cluster.run("n1", "service", "runs", "fails", "--format", "{{.ID}} {{.State}} {{.Completed}}")
    assert runs == "1 Failed 0/1\n"
    refused = cluster.refused("n1", "service", "update", "--update-delay", "1s", "fails")
    assert refused == "Error response from daemon: Jobs may not have an update config"


def test_a_global_job_runs_once_on_every_node_that_may_run_it(cluster: Cluster, made: list[str]) -> None:
    made.append("each")
    flags = ["--name", "each", "--mode", "global-job", "--constraint", "node.role==manager"]
    assert cluster.run("n1", "service", "create", *flags, IMAGE, "true").splitlines()[-1] == "job complete"
    nodes = cluster.run("n1", "service", "ps", "each", "--format", "{{.Node}}").split()
    assert sorted(nodes) == ["n1", "n2", "n3"]
    assert column(cluster, "each", "{{.Mode}}: {{.Replicas}}") == "global job: 0/0 (3/3 completed)"


def test_a_schedule_goes_on_through_its_leaders_death_every_tick_once(cluster: Cluster, made: list[str]) -> None:
    made.append("tick")
    flags = [
        "--name",
        "tick",
        "--mode",
        "cron",
        "--schedule",
        "@every 2s",
        "--overlap",
        "allow",
        "--run-history",
        "100",
    ]
    cluster.run("n1", "service", "create", *flags, IMAGE, "true")

    def completed() -> int:
        runs = status_of(cluster, "tick").get("CronStatus", {}).get("Runs", [])
        return sum(run["State"] == "complete" for run in runs)

    eventually(lambda: completed() >= 2, "two runs are complete")
    cluster.lab.kill(eventually(cluster.leader, "a leader"), "manager")
    before = completed()
    eventually(lambda: completed() >= before + 4, "runs go on under another leader")
    cluster.run("n1", "service", "stop", "tick")
    runs = status_of(cluster, "tick")["CronStatus"]["Runs"]
    ticks = [datetime.fromisoformat(run["Tick"]).timestamp() for run in runs]
    assert [round(later - earlier, 3) for earlier, later in itertools.pairwise(ticks)] == [PERIOD_S] * (len(ticks) - 1)
    assert [run["Iteration"] for run in runs] == list(range(1, len(runs) + 1))
    tasks = cluster.run("n1", "service", "ps", "tick", "-q").split()
    assert len(tasks) == len(runs)


def test_a_cron_service_can_be_run_besides_its_schedule(cluster: Cluster, made: list[str]) -> None:
    made.append("nightly")
    flags = ["--name", "nightly", "--mode", "cron", "--schedule", "30 2 * * *", "--time-zone", "Europe/Berlin"]
    assert cluster.run("n1", "service", "create", *flags, IMAGE, "true").splitlines()[1:] == [
        "cron service nightly is scheduled"
    ]
    assert cluster.run("n1", "service", "run", "nightly").splitlines()[-1] == "job complete"
    found = eventually(lambda: status_of(cluster, "nightly").get("CronStatus"), "a schedule")
    assert found["NextTick"][11:16] in ("00:30", "01:30")
    assert [run["Tick"] for run in found["Runs"]] == ["0001-01-01T00:00:00Z"]
    assert "Next Run:" in cluster.run("n1", "service", "inspect", "--pretty", "nightly")


def test_the_number_of_tasks_follows_their_use_up_and_down(cluster: Cluster, made: list[str]) -> None:
    hosts = ["n1", "n2", "n3", "n4", "n5"]
    for host in hosts:
        assert cluster.on(host, "sh", "-c", "mkdir -p /run/load && touch /run/load/on").returncode == 0
    made.append("hot")
    busy = 'trap "exit 0" TERM; while true; do [ -e /load/on ] || sleep 1; done'
    flags = ["--limit-cpu", "0.1", "--autoscale", "min=1,max=2,cpu=50,up-window=5s,down-window=5s"]
    mount = ["--mount", "type=bind,source=/run/load,target=/load"]
    cluster.run("n1", "service", "create", "-d", "--name", "hot", *flags, *mount, IMAGE, "sh", "-c", busy)
    eventually(lambda: len(cluster.running("hot")) == 2, "a second task, since the first is busy")
    assert column(cluster, "hot", "{{.Replicas}}") == "2/2 (autoscale 1-2)"
    for host in hosts:
        cluster.on(host, "rm", "/run/load/on")
    eventually(lambda: len(cluster.running("hot")) == 1, "one task is enough again")
    decisions = status_of(cluster, "hot")["AutoscaleStatus"]["Decisions"]
    assert [(decision["From"], decision["To"]) for decision in decisions] == [(1, 2), (2, 1)]
    assert all(decision["Reason"].startswith("cpu ") for decision in decisions)
    refused = cluster.refused("n1", "service", "scale", "hot=5")
    assert refused == "hot: scale cannot be used with an autoscaled service: change its --autoscale, or turn it off"
