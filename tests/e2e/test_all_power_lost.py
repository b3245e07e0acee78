"""The power of every host goes at once and comes back: the cluster is there again by itself, with everything it ran.

Once for a cluster of several managers, and once for one of a single host, whose node must not stay down although the
leader that marks it as up again is itself on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_cluster import IMAGE, Cluster, eventually, lab_with_clean_end

from pyswarm_lab.image import CHANGES, write_rootfs

HOSTS = ("n1", "n2", "n3", "n4")
REPLICAS = 4
PORT = "8097"


def _import_image(cluster: Cluster, directory: Path) -> None:
    archive = directory / "rootfs.tar"
    write_rootfs(archive)
    changes = [part for change in CHANGES for part in ("--change", change)]
    cluster.run("n1", "image", "import", *changes, str(archive), IMAGE)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three managers and a worker."""
    for cluster in lab_with_clean_end(f"power-{os.getpid()}", "--managers", "3", "--workers", "1"):
        _import_image(cluster, tmp_path_factory.mktemp("image"))
        argv = ("--name", "web", "--replicas", str(REPLICAS), "--restart-delay", "0s", "-p", f"{PORT}:80")
        cluster.run("n1", "service", "create", "--detach", *argv, IMAGE)
        cluster.run("n1", "service", "create", "--detach", "--name", "kept", "--replicas", "0", IMAGE)
        yield cluster


def _is_up(cluster: Cluster, hosts: tuple[str, ...], statuses: list[str]) -> bool:
    nodes = cluster.nodes("n1")
    return {name: status for name, (status, _) in nodes.items()} == dict.fromkeys(hosts, "Ready") and sorted(
        status for _, status in nodes.values()
    ) == statuses


def _answers(cluster: Cluster, host: str) -> bool:
    return cluster.on(host, "curl", "-s", "-m", "2", "-o", "/dev/null", f"http://127.0.0.1:{PORT}/").returncode == 0


def test_every_host_at_once(four: Cluster) -> None:
    eventually(lambda: len(four.running("web")) == REPLICAS, "the service to run")
    before = set(four.running("web"))
    for host in HOSTS:
        four.lab.kill(host)
    for host in HOSTS:
        four.lab.start(host)
    eventually(lambda: _is_up(four, HOSTS, ["", "Leader", "Reachable", "Reachable"]), "all nodes, and three managers")
    replaced = eventually(
        lambda: tasks if len(tasks := set(four.running("web"))) == REPLICAS and not tasks & before else None,
        "tasks in the place of those that ended with their hosts",
    )
    assert len(replaced) == REPLICAS
    assert set(four.run("n2", "service", "ls", "--format", "{{.Name}}").split()) == {"kept", "web"}
    for host in HOSTS:
        eventually(lambda host=host: _answers(four, host), f"{host} to send requests on")  # type: ignore[misc]
    four.run("n3", "service", "scale", "--detach", f"web={REPLICAS + 1}")
    eventually(lambda: len(four.running("web")) == REPLICAS + 1, "the cluster to do what it is asked for")
    assert four.on("n1", "pyswarm", "operator", "check").returncode == 0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    for cluster in lab_with_clean_end(f"alone-{os.getpid()}", "--managers", "1", "--workers", "0"):
        _import_image(cluster, tmp_path_factory.mktemp("image"))
        yield cluster


def test_the_only_host_is_ready_again(alone: Cluster) -> None:
    argv = ("--detach", "--name", "web", "--restart-delay", "0s", IMAGE)
    alone.run("n1", "service", "create", *argv)
    before = eventually(lambda: set(alone.running("web")), "the service to run")
    alone.lab.kill("n1")
    alone.lab.start("n1")
    eventually(lambda: _is_up(alone, ("n1",), ["Leader"]), "the node to be ready, and the leader")
    eventually(lambda: set(alone.running("web")) - before, "a task in the place of the one that ended with the host")
    alone.run("n1", "service", "create", "--detach", "--name", "later", IMAGE)
    eventually(lambda: alone.running("later"), "a new service on the same node")
