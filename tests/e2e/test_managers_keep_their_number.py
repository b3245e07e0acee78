"""The cluster keeps its managers by itself: hosts lose their power, workers step in, and who returns is a worker."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from e2e_cluster import Cluster, eventually, lab_with_clean_end


@pytest.fixture(scope="module")
def kept() -> Iterator[Cluster]:
    """Three managers in zones a, b and c, two workers in a and c; three managers are wanted."""
    for cluster in lab_with_clean_end(f"e2e-count-{os.getpid()}", "--managers", "3", "--workers", "2"):
        for host, zone in {"n1": "a", "n2": "b", "n3": "c", "n4": "a", "n5": "c"}.items():
            cluster.run("n1", "node", "update", "--label-add", f"zone={zone}", host)
        cluster.run("n1", "update", "--managers", "3", "--manager-grace", "5s")
        yield cluster


def managers(cluster: Cluster, host: str) -> dict[str, str]:
    """Manager status by host name."""
    return {name: status for name, (_, status) in cluster.nodes(host).items() if status}


def voters(cluster: Cluster, host: str) -> list[str]:
    """Host names of the members of Raft that vote and answer."""
    argv = ["operator", "raft", "list-peers", "--format", "{{.Hostname}}|{{.Role}}|{{.Reachable}}"]
    shown = cluster.on(host, "pyswarm", *argv)
    rows = [line.split("|") for line in shown.stdout.splitlines()] if shown.returncode == 0 else []
    return sorted(name for name, role, reachable in rows if role in ("voter", "leader") and reachable == "yes")


def test_a_dead_manager_is_replaced_by_a_worker_of_its_zone_and_returns_as_a_worker(kept: Cluster) -> None:
    kept.run("n2", "operator", "raft", "transfer-leadership", "n2")
    kept.lab.kill("n3")
    line = kept.refused("n1", "node", "demote", "n1")
    assert "demoting n1 would leave 1 of 2 managers reachable" in line
    assert "start n3 first, or use --force" in line
    assert "start n3 first" in kept.refused("n1", "leave")
    eventually(lambda: voters(kept, "n1") == ["n1", "n2", "n5"], "n5 votes in the place of n3")
    eventually(lambda: set(managers(kept, "n1")) == {"n1", "n2", "n5"}, "n3 is no manager any more")
    assert kept.run("n5", "node", "ls")  # it serves the API
    kept.lab.start("n3")
    eventually(lambda: kept.nodes("n1")["n3"] == ("Ready", ""), "n3 is back as a worker")
    eventually(lambda: "not a swarm manager" in kept.on("n3", "pyswarm", "node", "ls").stderr, "n3 knows it")
    assert kept.on("n3", "test", "-e", "/var/lib/pyswarm/manager").returncode == 1
    shown = kept.run("n1", "operator", "check")
    assert shown.count("equal") == 3


def test_the_leaders_host_is_replaced_as_well(kept: Cluster) -> None:
    leader = kept.leader("n1")
    kept.lab.kill(leader)
    rest = [name for name in ("n1", "n2", "n5") if name != leader]
    eventually(lambda: len(voters(kept, rest[0])) == 3 and leader not in managers(kept, rest[0]), "three vote again")
    kept.lab.start(leader)
    eventually(lambda: kept.nodes(rest[0])[leader] == ("Ready", ""), "the old leader is back as a worker")
    assert len(managers(kept, rest[0])) == 3


def test_managers_become_fewer_and_a_leader_of_two_can_be_demoted(kept: Cluster) -> None:
    host = next(iter(managers(kept, "n1") or managers(kept, "n5")))
    warned = kept.on(host, "pyswarm", "update", "--managers", "2")
    assert "Warning: 2 managers bear the loss of no more than 1 do." in warned.stderr
    leader = kept.leader(host)
    eventually(lambda: len(managers(kept, leader)) == 2, "one manager goes")
    assert kept.leader(leader) == leader  # it was not the leader
    kept.run(leader, "update", "--managers", "0")
    other = next(name for name in managers(kept, leader) if name != leader)
    kept.run(leader, "node", "demote", leader)
    eventually(lambda: managers(kept, other) == {other: "Leader"}, "the other one leads alone")
    assert "last manager" in kept.refused(other, "node", "demote", "--force", other)
    eventually(lambda: kept.nodes(other)[leader] == ("Ready", ""), "the old leader is a worker")
    wanted = kept.run(other, "swarm", "inspect", "--format", "{{.Spec.Managers.Wanted}} {{.Managers.Voters}}")
    assert wanted == "0 1\n"
