"""Plans and losses as a user sees them: what is told before is what happens then, task by task and node by node."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from e2e_cluster import IMAGE, Cluster, eventually

CHANGES = (
    ("service", "scale", "planned=6"),
    ("node", "drain", "n4"),
    ("service", "update", "--env-add", "A=1", "planned"),
    ("service", "rollback", "planned"),
    ("node", "update", "--availability", "active", "n4"),
    ("service", "rebalance", "planned"),
    ("service", "rm", "planned"),
)
WORKERS = ("--constraint", "node.hostname in (n3, n4, n5)")


def planned(cluster: Cluster, *argv: str) -> dict[str, Any]:
    """What `--plan` says: the flag comes after the two words of the command."""
    found = json.loads(cluster.run("n1", *argv[:2], "--plan", "--format", "json", *argv[2:]))
    assert isinstance(found, list)
    assert len(found) == 1
    return dict(found[0])


def places(cluster: Cluster, service: str) -> dict[str, str]:
    """Node by name of the tasks that are wanted and run; empty while the host cannot say."""
    argv = [
        "service",
        "ps",
        service,
        "--filter",
        "desired-state=running",
        "--format",
        "{{.Name}} {{.Node}} {{.CurrentState}}",
    ]
    done = cluster.on("n1", "pyswarm", *argv)
    rows = [line.split() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return {row[0]: row[1] for row in rows if row[2] == "Running"}


def changed(before: dict[str, str], plan: dict[str, Any]) -> dict[str, str]:
    """Where tasks are once the plan was carried out."""
    after = dict(before)
    for task in plan["Tasks"]:
        if task["Action"] == "stop":
            del after[task["Task"]]
        else:
            after[task["Task"]] = task["To"]
    return after


def test_what_is_planned_is_what_happens(cluster: Cluster, tmp_path: Path) -> None:
    create = ("service", "create", "--name", "planned", "--replicas", "4", "--update-parallelism", "1", *WORKERS)
    plan = planned(cluster, *create, IMAGE)
    assert plan["Fits"]
    assert [task["Action"] for task in plan["Tasks"]] == ["start"] * 4
    assert cluster.on("n1", "pyswarm", "service", "inspect", "planned").returncode == 1, "a plan changes nothing"
    cluster.run("n1", *create, "--quiet", IMAGE)
    eventually(lambda: places(cluster, "planned") == changed({}, plan), "the tasks are where the plan says")

    try:
        for argv in CHANGES:
            _plan_and_apply(cluster, argv, tmp_path / "plan")
    finally:
        cluster.run("n1", "node", "update", "--availability", "active", "n4")
        cluster.on("n1", "pyswarm", "service", "rm", "planned")


def _plan_and_apply(cluster: Cluster, argv: tuple[str, ...], file: Path) -> None:
    before = places(cluster, "planned")
    plan = planned(cluster, *argv)
    assert places(cluster, "planned") == before
    said = cluster.run("n1", *argv, "--plan", "--out", str(file))
    assert "Nothing was changed." in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    cluster.run("n2", "apply", str(file))
    expected = changed(before, plan)
    eventually(lambda: places(cluster, "planned") == expected, f"as planned: {argv}")


def test_a_plan_is_refused_once_the_state_moved(cluster: Cluster, tmp_path: Path) -> None:
    cluster.run("n1", "service", "create", "--quiet", "--name", "moved", "--replicas", "2", *WORKERS, IMAGE)
    file = str(tmp_path / "plan")
    cluster.run("n1", "service", "scale", "moved=3", "--plan", "-o", file)
    cluster.run("n1", "service", "scale", "moved=1")
    said = cluster.refused("n1", "apply", file)
    assert "the state moved since the plan was made (service moved changed at " in said
    assert said.endswith("plan again")
    assert len(places(cluster, "moved")) == 1
    Path(file).write_text("{}")
    assert "no changes" in cluster.refused("n1", "apply", file)
    cluster.run("n1", "service", "rm", "moved")


def test_what_a_loss_would_do_is_what_it_does(cluster: Cluster) -> None:
    cluster.run("n1", "service", "create", "--quiet", "--name", "lossy", "--replicas", "5", *WORKERS, IMAGE)
    cluster.run("n1", "service", "create", "--quiet", "--name", "stuck", "--constraint", "node.hostname==n5", IMAGE)
    cluster.run("n1", "node", "update", "--label-add", "zone=z5", "n5")
    before = places(cluster, "lossy")
    assert len(before) == 5
    [told] = json.loads(cluster.run("n1", "simulate", "loss", "--label", "zone=z5", "--format", "json"))
    assert [node["Node"] for node in told["Lost"]] == ["n5"]
    assert told["Quorum"]["Holds"]
    assert told["Quorum"]["Lost"] == 0
    assert told["Outages"] == [{"Service": "stuck", "Recovers": False}]
    assert [task["Task"] for task in told["Pending"]] == ["stuck.1"]
    assert "no suitable node" in told["Pending"][0]["Reason"]
    assert "NO QUORUM" in cluster.run("n1", "simulate", "loss", "--node", "n2", "--node", "n3")
    expected = changed(before, {"Tasks": [task for task in told["Tasks"] if task["Service"] == "lossy"]})
    assert expected != before
    try:
        assert cluster.cli("lab", "kill", "--name", cluster.name, "n5").returncode == 0
        eventually(lambda: places(cluster, "lossy") == expected, "the tasks are where the simulation said")
        assert places(cluster, "stuck") == {}
    finally:
        assert cluster.cli("lab", "start", "--name", cluster.name, "n5").returncode == 0
        eventually(lambda: cluster.nodes().get("n5", ("",))[0] == "Ready", "the host is back")
        cluster.run("n1", "node", "update", "--label-rm", "zone", "n5")
        cluster.run("n1", "service", "rm", "lossy", "stuck")
