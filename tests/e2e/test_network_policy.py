"""Who may reach a service, as a user says it; and names of slots. No task is replaced, whatever is allowed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

FETCH = "timeout 5 busybox wget -q -O - http://{name}/"


@pytest.fixture(scope="module")
def guarded(cluster: Cluster) -> Iterator[Cluster]:
    """db lets web in, not other; each has a task on a host of its own, db's is asked by a health check too."""
    cluster.run("n1", "network", "create", "-d", "overlay", "guarded")
    shared = ("service", "create", "-q", "--network", "guarded")
    db = ("--name", "db", "--allow-from", "web", "-p", "8099:80", "--constraint", "node.hostname==n4")
    done = cluster.on("n1", "pyswarm", *shared, *db, "--health-http", "http://:80/", "--health-interval", "1s", IMAGE)
    assert done.returncode == 0, done.stderr
    assert "no service is named web yet" in done.stderr
    for name, host in (("web", "n5"), ("other", "n4")):
        cluster.run("n1", *shared, "--name", name, "--constraint", f"node.hostname=={host}", IMAGE)
    yield cluster
    cluster.run("n1", "service", "rm", "db", "web", "other")
    eventually(lambda: cluster.on("n1", "pyswarm", "network", "rm", "guarded").returncode == 0, "the network goes")


def reaches(cluster: Cluster, source: str, name: str = "db") -> bool:
    done = cluster.on("n1", "pyswarm", "service", "exec", source, "sh", "-c", FETCH.format(name=name))
    return done.returncode == 0


def is_published(cluster: Cluster) -> bool:
    return cluster.on("n2", "sh", "-c", FETCH.format(name="127.0.0.1:8099")).returncode == 0


def test_only_who_is_named_gets_in_and_a_change_takes_effect_at_once(guarded: Cluster) -> None:
    before = guarded.running("db")
    assert reaches(guarded, "web")
    assert reaches(guarded, "web", "1.db")
    assert reaches(guarded, "web", "1.db.guarded")
    assert not reaches(guarded, "other")
    assert not is_published(guarded)
    guarded.run("n1", "service", "update", "-q", "--allow-from-add", "other", "--allow-from-add", "ingress", "db")
    eventually(lambda: reaches(guarded, "other") and is_published(guarded), "who was added gets in")
    assert "Allow From:\tweb, other, ingress" in guarded.run("n1", "service", "inspect", "--pretty", "db")
    for name in ("web", "other", "ingress"):
        guarded.run("n1", "service", "update", "-q", "--allow-from-rm", name, "db")
    eventually(lambda: not (reaches(guarded, "web") or is_published(guarded)), "nobody gets in")
    assert guarded.run("n1", "service", "inspect", "db", "--format", "{{.Spec.EndpointSpec.AllowFrom}}") == "[none]\n"
    guarded.run("n1", "service", "update", "-q", "--allow-from-rm", "none", "db")
    eventually(lambda: reaches(guarded, "other") and is_published(guarded), "everybody gets in")
    assert guarded.running("db") == before


def test_what_makes_no_sense_is_refused(guarded: Cluster) -> None:
    line = guarded.refused("n1", "service", "update", "--allow-from", "none", "--allow-from", "web", "db")
    assert "goes with no other source" in line
