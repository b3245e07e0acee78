"""What a service was, and how it gets back there; services that wait, stop and start; tasks restarted one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

from pyswarm_lab.image import write_rootfs

QUICK = ("--update-monitor", "1s", "--rollback-monitor", "1s", "--restart-delay", "1s")


@pytest.fixture(scope="module")
def images(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """web:next is the same under another name, web:ends ends at once."""
    cluster.run("n1", "image", "tag", IMAGE, "web:next")
    archive = tmp_path_factory.mktemp("ends") / "rootfs.tar"
    write_rootfs(archive)
    cluster.run("n1", "image", "import", "--change", 'CMD ["/bin/false"]', str(archive), "web:ends")
    return cluster


@pytest.fixture
def old(images: Cluster) -> Iterator[Cluster]:
    """Two replicas of a service called old."""
    images.run("n1", "service", "create", "-q", "--name", "old", "--replicas", "2", *QUICK, IMAGE)
    yield images
    images.run("n1", "service", "rm", "old")


def history(cluster: Cluster) -> list[tuple[str, str, str]]:
    """(number, author, changes), newest first."""
    template = "{{.Revision}}|{{.Author}}|{{.Changes}}"
    lines = cluster.run("n2", "service", "history", "--no-trunc", "--format", template, "old").splitlines()
    rows = [line.split("|") for line in lines]
    return [(row[0], row[1], row[2]) for row in rows]


def replicas(cluster: Cluster) -> str:
    return cluster.run("n1", "service", "ls", "--filter", "name=old", "--format", "{{.Replicas}}").strip()


def test_every_spec_is_told_of_compared_and_gone_back_to(old: Cluster) -> None:
    old.run("n1", "service", "update", "-q", "--image", "web:next", "--label-add", "a=b", "old")
    old.run("n2", "service", "scale", "old=3")
    assert history(old) == [
        ("3", "root", "replicas 2 -> 3"),
        ("2", "root", f"labels.a b, image {IMAGE} -> web:next"),
        ("1", "root", "created"),
    ]
    assert old.run("n3", "service", "diff", "old", "1").splitlines()[2:] == [
        "+labels.a: b",
        "-replicas: 2",
        "+replicas: 3",
        f"-container.image: {IMAGE}",
        "+container.image: web:next",
    ]
    assert old.run("n1", "service", "diff", "old", "2", "3").splitlines()[2:] == ["-replicas: 2", "+replicas: 3"]
    old.run("n1", "service", "rollback", "-q", "--to", "1", "old")
    assert len(old.running("old")) == 2
    assert old.run("n1", "service", "inspect", "old", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}") == (
        f"{IMAGE}\n"
    )
    assert history(old)[0][0] == "4"
    refused = old.refused("n1", "service", "rollback", "--to", "99", "old")
    assert refused.endswith("service old has no revision 99: 1 to 4 are kept")


def test_an_update_that_goes_back_by_itself_is_in_the_history_as_the_planners(old: Cluster) -> None:
    update = ("--image", "web:ends", "--update-failure-action", "rollback")
    assert old.refused("n1", "service", "update", *update, "old").startswith("service rolled back: ")
    assert [row[:2] for row in history(old)] == [("3", "planner"), ("2", "root"), ("1", "root")]
    assert old.run("n1", "service", "diff", "old", "1", "3") == ""


def test_a_stopped_service_keeps_its_number_and_starts_with_it(old: Cluster) -> None:
    assert old.run("n1", "service", "stop", "old").splitlines()[-1] == "verify: Service old stopped"
    assert replicas(old) == "0/2 (stopped)"
    assert old.run("n1", "service", "ps", "-q", "old") == ""
    old.run("n1", "service", "start", "old")
    assert replicas(old) == "2/2"


def test_a_task_is_restarted_in_order_and_another_one_removed(old: Cluster) -> None:
    before = old.running("old")
    old.run("n1", "task", "restart", "old.1")
    eventually(lambda: len(old.running("old")) == 2 and old.running("old") != before, "old.1 has a successor")
    assert len(set(before) & set(old.running("old"))) == 1
    told = old.run("n1", "service", "inspect", "old", "--format", "{{json .}}")
    assert '"UpdateStatus"' not in told
    assert " \\_ old.1" in old.run("n1", "task", "ls", "--filter", "name=old")
    (stays,) = set(before) & set(old.running("old"))
    assert "has not ended" in old.refused("n1", "task", "rm", stays)
    old.run("n1", "task", "rm", "--force", stays)
    eventually(lambda: len(old.running("old")) == 2 and stays not in old.running("old"), "another task is there")
    eventually(lambda: old.on("n1", "pyswarm", "task", "inspect", stays).returncode == 1, "the task is forgotten")


def test_first_tasks_wait_for_the_services_they_depend_on(images: Cluster) -> None:
    try:
        images.run("n1", "service", "create", "-d", "--name", "app", "--depends-on", "base:healthy", IMAGE)
        waits = "waits for service base to be healthy (there is no such service)"
        eventually(lambda: waits in images.run("n1", "service", "ps", "--no-trunc", "app"), "it says what for")
        circle = images.refused("n1", "service", "create", "--name", "base", "--depends-on", "app", IMAGE)
        assert circle.endswith("services may not wait for each other in a circle: base -> app -> base")
        images.run("n1", "service", "create", "-q", "--name", "base", *QUICK, IMAGE)
        eventually(lambda: len(images.running("app")) == 1, "it starts")
    finally:
        for name in ("app", "base"):
            images.on("n1", "pyswarm", "service", "rm", name)
