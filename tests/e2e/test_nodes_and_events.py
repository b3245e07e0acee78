"""Nodes as a user sees them: drained in order and within a deadline, what is free there, removed without ghosts; and
what happened, from any version on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

QUICK = ("--update-monitor", "1s", "--restart-delay", "1s", "--stop-grace-period", "1s")
FIRST = "192.168.77.11"


@pytest.fixture
def n5(cluster: Cluster) -> Iterator[Cluster]:
    """n5 takes tasks again, whatever a test did to it."""
    yield cluster
    cluster.run("n1", "node", "update", "--availability", "active", "n5")


@pytest.fixture
def moved(n5: Cluster) -> Iterator[Cluster]:
    """Ten replicas, two on each node."""
    n5.run("n1", "service", "create", "--name", "moved", "--replicas", "10", *QUICK, IMAGE)
    yield n5
    n5.run("n1", "service", "rm", "moved")


def events(cluster: Cluster, *argv: str) -> list[dict[str, Any]]:
    """What happened until now."""
    text = cluster.run("n1", "events", "--until", "0s", "--format", "json", *argv)
    return [json.loads(line) for line in text.splitlines()]


def version(cluster: Cluster) -> str:
    """Of the last change of a service."""
    return "v" + cluster.run("n1", "service", "inspect", "moved", "--format", "{{.Version.Index}}").strip()


def test_a_drain_moves_one_task_after_another_and_tells_when_the_node_is_empty(moved: Cluster) -> None:
    begin = version(moved)
    shown = moved.run("n1", "node", "drain", "--wait", "n5")
    assert shown.splitlines()[0] == "n5"
    assert "overall progress: 2 out of 2 tasks have left n5" in shown
    assert shown.splitlines()[-1] == "drain: n5 is empty"
    assert "n5" not in moved.running("moved").values()
    assert len(moved.running("moved")) == 10
    happened = events(moved, "--since", begin, "--filter", "service=moved", "--filter", "type=task")
    assert most_away(happened) <= 1
    assert moved.run("n1", "node", "inspect", "n5", "--format", "{{.Resources.Tasks}}").strip() == "0"


def most_away(happened: list[dict[str, Any]]) -> int:
    """How many tasks had stopped at a time without another one running in their place."""
    away = most = 0
    for row in happened:
        state = row["Actor"]["Attributes"].get("state.new")
        away += (state == "shutdown") - (state == "running")
        most = max(most, away)
    return most


def test_what_cannot_move_is_told_and_stops_at_the_deadline(n5: Cluster) -> None:
    pinned = ("--constraint", "node.hostname==n5")
    n5.run("n1", "service", "create", "--name", "pinned", *QUICK, *pinned, IMAGE)
    try:
        shown = n5.run("n1", "node", "update", "--availability", "drain", "--deadline", "6s", "--wait", "n5")
        assert "pinned.1: waits for its successor: no suitable node" in shown
        assert "drain: what is left is stopped in" in shown
        assert shown.splitlines()[-1] == "drain: n5 is empty"
        assert n5.running("pinned") == {}
        since = n5.run("n1", "node", "inspect", "n5", "--format", "{{.DrainStartedAt}}").strip()
        assert since in n5.run("n1", "node", "inspect", "--pretty", "n5")
        n5.run("n1", "node", "update", "--availability", "active", "n5")
        eventually(lambda: list(n5.running("pinned").values()) == ["n5"], "the task is back")
    finally:
        n5.run("n1", "service", "rm", "pinned")


def test_ctrl_c_ends_the_waiting_only(n5: Cluster) -> None:
    n5.run("n1", "service", "create", "--name", "stays", *QUICK, "--constraint", "node.hostname==n5", IMAGE)
    try:
        argv = ["timeout", "--signal=INT", "3", "pyswarm", "node", "drain", "--wait", "n5"]
        done = n5.on("n1", *argv)
        assert "The drain continues in background." in done.stdout
        assert n5.run("n1", "node", "inspect", "n5", "--format", "{{.Spec.Availability}}") == "drain\n"
        assert list(n5.running("stays").values()) == ["n5"]
    finally:
        n5.run("n1", "service", "rm", "stays")


def test_what_is_reserved_and_free(n5: Cluster) -> None:
    reserve = ("--reserve-memory", "64m", "--reserve-cpu", "0.25", "--constraint", "node.hostname==n5")
    n5.run("n1", "service", "create", "--name", "big", "--replicas", "2", *QUICK, *reserve, IMAGE)
    try:
        resources = json.loads(n5.run("n1", "node", "inspect", "n5"))[0]["Resources"]
        assert resources["Reserved"] == {"NanoCPUs": 500_000_000, "MemoryBytes": 128 << 20}
        for what in ("NanoCPUs", "MemoryBytes"):
            assert resources["Free"][what] == resources["Total"][what] - resources["Reserved"][what]
        rows = n5.run("n1", "node", "ls", "--resources", "--format", "{{.Hostname}} {{.CPUs}} {{.Memory}}").splitlines()
        assert any(row.startswith("n5 0.5 / ") and " 128MiB / " in row for row in rows)
    finally:
        n5.run("n1", "service", "rm", "big")


def test_events_go_on_from_any_version(moved: Cluster) -> None:
    begin = version(moved)
    moved.run("n1", "service", "scale", "moved=11")
    every = events(moved, "--since", begin)
    scaled = next(row["Actor"]["Attributes"] for row in every if row["Type"] == "service")
    assert (scaled["replicas.old"], scaled["replicas.new"]) == ("10", "11")
    created = next(row for row in every if row["Type"] == "task" and row["Action"] == "create")
    rest = events(moved, "--since", f"v{created['Version']}", "--filter", "service=moved")
    assert rest
    assert all(row["Version"] > created["Version"] for row in rest)
    states = [row["Actor"]["Attributes"].get("state.new") for row in rest if row["ID"] == created["ID"]]
    assert states[-1] == "running"
    on_n5 = events(moved, "--since", begin, "--filter", "node=n5")
    assert {row["Type"] for row in on_n5} <= {"task", "node"}


def test_events_survive_the_end_of_the_manager_that_told_them(moved: Cluster) -> None:
    # From a version on: a watch of what is to come may begin only after the change that it is to tell of.
    version = moved.run("n1", "service", "inspect", "moved", "--format", "{{.Version.Index}}").strip()
    command = ["pyswarm", "events", "--since", version, "--filter", "service=moved", "--filter", "type=service"]
    argv = moved.lab.exec_argv("n2", [*command, "--format", "{{.Action}}"])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout is not None
            moved.run("n1", "service", "update", "--label-add", "a=1", "--detach", "moved")
            assert follower.stdout.readline() == "update\n"
            moved.lab.kill("n2", "manager")
            moved.run("n1", "service", "update", "--label-add", "a=2", "--detach", "moved")
            assert follower.stdout.readline() == "update\n"
        finally:
            follower.kill()


def test_a_dead_node_that_is_removed_leaves_no_ghosts(cluster: Cluster) -> None:
    cluster.run("n1", "service", "create", "--name", "ghosts", "--replicas", "5", *QUICK, IMAGE)
    try:
        cluster.lab.kill("n5")
        eventually(lambda: cluster.nodes()["n5"][0] == "Down", "n5 is Down")
        assert "n5" in cluster.run("n1", "service", "ps", "ghosts", "--format", "{{.Node}}")
        assert cluster.run("n1", "node", "rm", "n5") == "n5\n"
        states = cluster.run("n1", "service", "ps", "ghosts", "--no-trunc", "--format", "{{.CurrentState}}|{{.Node}}")
        assert "n5" not in states
        eventually(lambda: len(cluster.running("ghosts")) == 5, "five run elsewhere")
        cluster.lab.start("n5")
        eventually(lambda: "removed" in cluster.on("n5", "pyswarm", "info").stdout, "n5 knows that it was removed")
    finally:
        cluster.run("n1", "service", "rm", "ghosts")
        rejoin(cluster)


def rejoin(cluster: Cluster) -> None:
    """Be n5 again, for the tests that come after."""
    if not cluster.lab.is_running("n5"):
        cluster.lab.start("n5")
    eventually(lambda: cluster.on("n5", "pyswarm", "leave", "--force").returncode == 0, "n5 has left")
    token = cluster.run("n1", "join-token", "-q", "worker").strip()
    cluster.run("n5", "join", "--token", token, "--advertise-addr", cluster.lab.host("n5").address, FIRST)
    eventually(lambda: cluster.nodes().get("n5", ("", ""))[0] == "Ready", "n5 is Ready")
