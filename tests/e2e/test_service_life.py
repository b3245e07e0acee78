"""A service's and a node's life beyond the main job: updates that succeed, fail and go back; drain; changed roles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

from pyswarm_lab.image import write_rootfs

QUICK = ("--update-monitor", "1s", "--restart-delay", "1s")


@pytest.fixture(scope="module")
def images(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """web:2 is the same under another name, web:bad ends at once."""
    cluster.run("n1", "image", "tag", IMAGE, "web:2")
    archive = tmp_path_factory.mktemp("bad") / "rootfs.tar"
    write_rootfs(archive)
    cluster.run("n1", "image", "import", "--change", 'CMD ["/bin/false"]', str(archive), "web:bad")
    return cluster


@pytest.fixture
def life(images: Cluster) -> Iterator[Cluster]:
    """Three replicas of web:1, fresh for every test."""
    images.run("n1", "service", "create", "--name", "life", "--replicas", "3", *QUICK, IMAGE)
    yield images
    images.run("n1", "service", "rm", "life")


def images_of(cluster: Cluster, service: str = "life") -> list[str]:
    """The images of the tasks that are wanted and run."""
    argv = ["service", "ps", service, "--filter", "desired-state=running", "--format", "{{.Image}} {{.CurrentState}}"]
    rows = [line.split() for line in cluster.run("n1", *argv).splitlines()]
    return [row[0] for row in rows if row[1] == "Running"]


def test_a_rolling_update_replaces_every_task_and_a_rollback_brings_the_old_ones_back(life: Cluster) -> None:
    updated = life.run("n1", "service", "update", "--image", "web:2", "life")
    assert updated.splitlines()[-1] == "verify: Service life converged"
    assert images_of(life) == ["web:2"] * 3
    history = life.run("n1", "service", "ps", "life")
    assert history.count(" \\_ life.") == 3
    life.run("n1", "service", "rollback", "life")
    assert images_of(life) == [IMAGE] * 3


def test_an_update_that_fails_pauses_keeps_the_rest_and_tells_why(life: Cluster) -> None:
    line = life.refused("n1", "service", "update", "--image", "web:bad", "life")
    assert line.startswith("service update paused: ")
    # A task that ran for a moment lets the next one begin before its end is known: one or two old ones are left.
    assert IMAGE in images_of(life)
    assert life.run("n1", "service", "inspect", "life", "--format", "{{.UpdateStatus.State}}") == "paused\n"
    life.run("n1", "service", "update", "--rollback", "life")
    assert images_of(life) == [IMAGE] * 3


def test_an_update_that_fails_can_go_back_by_itself(life: Cluster) -> None:
    line = life.refused("n1", "service", "update", "--update-failure-action", "rollback", "--image", "web:bad", "life")
    assert line.startswith("service rolled back: ")
    assert images_of(life) == [IMAGE] * 3


def test_an_update_that_tasks_do_not_see_restarts_none(life: Cluster) -> None:
    before = life.running("life")
    life.run("n1", "service", "update", "--label-add", "a=b", "--update-parallelism", "2", "life")
    assert life.running("life") == before
    life.run("n1", "service", "update", "--force", "life")
    assert not set(before) & set(life.running("life"))


def test_scaled_to_nothing_and_back(life: Cluster) -> None:
    life.run("n1", "service", "scale", "life=0")
    assert life.running("life") == {}
    life.run("n1", "service", "scale", "life=2")
    assert len(life.running("life")) == 2


def test_a_container_that_dies_is_replaced(life: Cluster) -> None:
    before = life.running("life")
    host = next(iter(before.values()))
    # The first process of a container on that host: the child of its conmon.
    kill = "kill -9 $(ps ax -o pid,ppid,comm | awk '$3 == \"conmon\" {c[$1]=1} c[$2] {print $1; exit}')"
    assert life.on(host, "sh", "-c", kill).returncode == 0
    eventually(lambda: len(life.running("life")) == 3 and life.running("life") != before, "a replacement runs")
    assert "Failed" in life.run("n1", "service", "ps", "life")


def test_interrupted_waiting_leaves_the_service_to_go_on(images: Cluster) -> None:
    create = ["pyswarm", "service", "create", "--name", "waits", "--constraint", "node.labels.nowhere==1"]
    done = images.on("n1", "timeout", "--preserve-status", "-s", "INT", "5", *create, IMAGE)
    try:
        assert done.returncode == 130
        assert done.stdout.splitlines()[-2:] == [
            "Operation continuing in background.",
            "Use `pyswarm service ps waits` to check progress.",
        ]
        assert "no suitable node" in images.run("n1", "service", "ps", "--no-trunc", "waits")
        n5 = images.run("n1", "node", "inspect", "n5", "--format", "{{.ID}}").strip()
        images.run("n1", "node", "update", "--label-add", "nowhere=1", n5)
        eventually(lambda: list(images.running("waits").values()) == ["n5"], "a label makes the task fit")
    finally:
        images.run("n1", "service", "rm", "waits")
        images.run("n1", "node", "update", "--label-rm", "nowhere", "n5")


def test_a_global_service_runs_once_on_every_node_and_leaves_a_drained_one(images: Cluster) -> None:
    images.run("n1", "service", "create", "--mode", "global", "--name", "everywhere", *QUICK, IMAGE)
    try:
        assert sorted(images.running("everywhere").values()) == ["n1", "n2", "n3", "n4", "n5"]
        images.run("n1", "node", "update", "--availability", "drain", "n5")
        eventually(lambda: sorted(images.running("everywhere").values()) == ["n1", "n2", "n3", "n4"], "n5 is empty")
        images.run("n1", "node", "update", "--availability", "active", "n5")
        eventually(lambda: len(images.running("everywhere")) == 5, "n5 has its task again")
    finally:
        images.run("n1", "node", "update", "--availability", "active", "n5")
        images.run("n1", "service", "rm", "everywhere")


def test_a_worker_becomes_a_manager_and_a_worker_again(cluster: Cluster) -> None:
    assert cluster.run("n1", "node", "promote", "n5") == "Node n5 promoted to a manager in the swarm.\n"
    eventually(lambda: cluster.nodes()["n5"][1] == "Reachable", "n5 is a manager")
    eventually(lambda: cluster.nodes("n5"), "n5 answers for the swarm")
    assert cluster.run("n1", "node", "demote", "n5") == "Node n5 demoted in the swarm.\n"
    eventually(lambda: cluster.nodes()["n5"] == ("Ready", ""), "n5 is a worker")
    eventually(lambda: "not a swarm manager" in cluster.on("n5", "pyswarm", "node", "ls").stderr, "n5 refuses again")
    assert len(cluster.nodes()) == 5


def test_a_worker_leaves_is_removed_and_joins_again(cluster: Cluster) -> None:
    assert cluster.run("n5", "leave") == "Node left the swarm.\n"
    eventually(lambda: cluster.nodes()["n5"][0] == "Down", "n5 is Down")
    assert cluster.run("n1", "node", "rm", "n5") == "n5\n"
    assert "n5" not in cluster.nodes()
    token = cluster.run("n1", "join-token", "-q", "worker").strip()
    joined = cluster.run(
        "n5", "join", "--token", token, "--advertise-addr", cluster.lab.host("n5").address, "192.168.77.11"
    )
    assert joined == "This node joined a swarm as a worker.\n"
    eventually(lambda: cluster.nodes().get("n5", ("", ""))[0] == "Ready", "n5 is Ready")
