"""Where tasks go, as a user sees it: reasons and what would help, taints, priorities, and moving tasks for balance."""

from __future__ import annotations

import json
from collections import Counter

from e2e_cluster import IMAGE, Cluster, eventually

THREE = ("--constraint", "node.hostname in (n1, n2, n3)")


def create(cluster: Cluster, name: str, *flags: str, replicas: int = 1) -> None:
    cluster.run(
        "n1", "service", "create", "--detach", "--quiet", "--name", name, "--replicas", str(replicas), *flags, IMAGE
    )


def nodes_of(cluster: Cluster, service: str) -> list[str]:
    return sorted(cluster.running(service).values())


def test_a_waiting_task_says_why_and_what_is_suggested_helps(cluster: Cluster) -> None:
    create(cluster, "wait", "--constraint", "node.labels.gpu==yes", "--constraint", "node.hostname in (n2, n3)")
    reason = "no suitable node (scheduling constraints not satisfied on 5 nodes)"
    eventually(lambda: reason in cluster.run("n1", "service", "why", "wait"), "the reason is told")
    said = cluster.run("n1", "task", "why", "wait.1")
    assert "constraint node.labels.gpu==yes not satisfied" in said
    [told] = json.loads(cluster.run("n1", "task", "why", "wait.1", "--format", "json"))
    assert ["remove the constraint node.labels.gpu==yes"] in told["Suggestions"]
    assert told["OneMoreNode"] == "", "no other node is called n2 or n3"
    [label] = [parts[0] for parts in told["Suggestions"] if len(parts) == 1 and "add the label gpu=yes" in parts[0]]
    node = label.rsplit(" ", 1)[1]
    assert node in ("n2", "n3")
    cluster.run("n1", "node", "update", "--label-add", "gpu=yes", node)
    eventually(lambda: nodes_of(cluster, "wait") == [node], "it runs there")
    said = cluster.run("n1", "task", "why", "wait.1")
    assert "chosen" in said
    assert "Any one of these would help" not in said
    cluster.run("n1", "service", "rm", "wait")


def test_a_taint_drives_tasks_away_and_a_toleration_lets_them_come(cluster: Cluster) -> None:
    create(cluster, "plain", *THREE, replicas=3)
    create(cluster, "tough", *THREE, "--toleration", "maintenance", replicas=3)
    eventually(lambda: nodes_of(cluster, "plain") == nodes_of(cluster, "tough") == ["n1", "n2", "n3"], "all run")
    cluster.run("n1", "node", "update", "--taint-add", "maintenance=soon:no-execute", "n3")
    eventually(lambda: len(nodes_of(cluster, "plain")) == 3 and "n3" not in nodes_of(cluster, "plain"), "n3 is left")
    assert nodes_of(cluster, "tough") == ["n1", "n2", "n3"]
    cluster.run("n1", "node", "update", "--taint-rm", "maintenance", "n3")
    assert "doesn't exist" in cluster.refused("n1", "node", "update", "--taint-rm", "maintenance", "n3")

    # Nothing moves back by itself; when it is asked for, the fewest tasks move.
    [planned] = json.loads(cluster.run("n1", "service", "rebalance", "--plan", "--format", "json", "plain"))
    assert [(task["Action"], task["To"]) for task in planned["Tasks"]] == [("move", "n3")], planned
    cluster.run("n1", "service", "rebalance", "plain")
    assert nodes_of(cluster, "plain") == ["n1", "n2", "n3"]
    assert "spread evenly" in cluster.run("n1", "service", "rebalance", "plain")
    cluster.run("n1", "service", "rm", "plain", "tough")


def test_a_higher_priority_takes_the_place_of_a_lower_one(cluster: Cluster) -> None:
    [node] = json.loads(cluster.run("n1", "node", "inspect", "n2"))
    most = int(node["Description"]["Resources"]["MemoryBytes"] * 0.6)
    flags = ("--constraint", "node.hostname==n2", "--reserve-memory", str(most))
    create(cluster, "low", *flags)
    eventually(lambda: nodes_of(cluster, "low") == ["n2"], "the low one runs")
    create(cluster, "high", *flags, "--priority", "10")
    eventually(lambda: nodes_of(cluster, "high") == ["n2"], "the high one took its place")
    assert nodes_of(cluster, "low") == []
    said = cluster.run("n1", "service", "why", "low")
    assert "preempted by service high (priority 10)" in said
    assert "reserve " in said
    cluster.run("n1", "service", "rm", "high")
    eventually(lambda: nodes_of(cluster, "low") == ["n2"], "the low one is back")
    cluster.run("n1", "service", "rm", "low")


def test_a_service_moves_by_itself_when_a_node_is_active_again(cluster: Cluster) -> None:
    cluster.run("n1", "node", "update", "--availability", "pause", "n3")
    create(cluster, "even", *THREE, "--rebalance", "--update-parallelism", "2", replicas=4)
    eventually(lambda: Counter(nodes_of(cluster, "even")) == {"n1": 2, "n2": 2}, "two nodes share it")
    cluster.run("n1", "node", "update", "--availability", "active", "n3")
    eventually(lambda: sorted(Counter(nodes_of(cluster, "even")).values()) == [1, 1, 2], "three nodes share it")
    cluster.run("n1", "service", "rm", "even")
