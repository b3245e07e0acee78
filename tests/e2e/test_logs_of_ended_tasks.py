"""What an ended task wrote can be read, and its files copied, until the task leaves the history: as a user sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from e2e_cluster import IMAGE, Cluster, eventually


@pytest.fixture
def made(cluster: Cluster) -> Iterator[list[str]]:
    """Names of services that the test made; they are removed whatever happens."""
    names: list[str] = []
    yield names
    for name in names:
        cluster.on("n1", "pyswarm", "service", "rm", name)


def lines_of(cluster: Cluster, kind: str, name: str, *flags: str) -> list[str]:
    return cluster.run("n2", kind, "logs", "--raw", *flags, name).splitlines()


def tasks_of(cluster: Cluster, service: str) -> dict[str, str]:
    """Node by id."""
    template = "{{.ID}} {{.Node}}"
    rows = cluster.run("n1", "service", "ps", "--no-trunc", "--format", template, service).splitlines()
    return dict(row.split() for row in rows)


def container_of(cluster: Cluster, task_id: str) -> str:
    (task,) = json.loads(cluster.run("n1", "task", "inspect", task_id))
    container_id: str = task["Status"]["ContainerStatus"]["ContainerID"]
    assert len(container_id) == 64
    return container_id


def left_of(cluster: Cluster, host: str, container_id: str) -> list[str]:
    """What on the host bears the container's name."""
    argv = ["find", "/var/lib/pyswarm", "/run/pyswarm", "-name", f"*{container_id}*", "-prune"]
    return cluster.on(host, *argv).stdout.split()


def test_a_completed_jobs_log_is_there_until_the_service_is_removed(cluster: Cluster, made: list[str]) -> None:
    made.append("spoke")
    flags = ["--name", "spoke", "--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "1"]
    command = ["sh", "-c", "echo $SLOT begins; echo kept > /kept; echo $SLOT ends"]
    cluster.run("n1", "service", "create", "-q", *flags, "--env", "SLOT={{.Task.Slot}}", IMAGE, *command)
    slots = lines_of(cluster, "service", "spoke")
    assert slots == [f"{slot} {word}" for slot in (1, 2, 3) for word in ("begins", "ends")], "in order of time"
    assert len(lines_of(cluster, "service", "spoke", "--tail", "1")) == 3, "of each task"

    tasks = tasks_of(cluster, "spoke")
    containers = {container_of(cluster, task_id): node for task_id, node in tasks.items()}
    assert lines_of(cluster, "task", next(iter(tasks)))[1].endswith(" ends")
    cluster.run("n2", "task", "cp", f"{next(iter(tasks))}:/kept", "/tmp/kept")
    assert cluster.on("n2", "cat", "/tmp/kept").stdout == "kept\n"
    assert all(left_of(cluster, node, container_id) for container_id, node in containers.items())

    cluster.run("n1", "service", "rm", "spoke")
    for container_id, node in containers.items():
        eventually(lambda n=node, c=container_id: not left_of(cluster, n, c), f"no container is left on {node}")
    assert cluster.refused("n1", "service", "logs", "spoke").endswith("no such task or service: spoke")


def written(cluster: Cluster, service: str) -> list[str]:
    """To standard error."""
    return cluster.on("n1", "pyswarm", "service", "logs", "--raw", service).stderr.splitlines()


def test_a_failed_tasks_log_survives_the_daemon_and_goes_with_the_history(cluster: Cluster, made: list[str]) -> None:
    made.append("fell")
    flags = ["--name", "fell", "--restart-condition", "on-failure", "--restart-max-attempts", "1"]
    flags += ["--restart-delay", "0s", "--constraint", "node.hostname==n4"]
    command = ["sh", "-c", "echo it went wrong >&2; exit 3"]
    cluster.run("n1", "service", "create", "-d", *flags, IMAGE, *command)

    def states() -> list[str]:
        argv = ["service", "ps", "fell", "--format", "{{.CurrentState}}"]
        return [row.split()[0] for row in cluster.run("n1", *argv).splitlines()]

    eventually(lambda: states() == ["Failed", "Failed"], "both attempts failed")
    errors = written(cluster, "fell")
    assert errors == ["it went wrong", "it went wrong"]

    containers = [container_of(cluster, task_id) for task_id in tasks_of(cluster, "fell")]
    cluster.lab.kill("n4", "pyswarmd")
    cluster.lab.start("n4")
    eventually(lambda: cluster.on("n4", "pyswarm", "info").returncode == 0, "pyswarmd answers again")
    eventually(lambda: cluster.nodes()["n4"][0] == "Ready", "its node is Ready")
    again = eventually(lambda: written(cluster, "fell"), "the log")
    assert again == errors
    assert states() == ["Failed", "Failed"], "nothing ran again"
    assert all(left_of(cluster, "n4", container_id) for container_id in containers)

    cluster.run("n1", "service", "rm", "fell")
    eventually(lambda: not any(left_of(cluster, "n4", each) for each in containers), "no container is left")
