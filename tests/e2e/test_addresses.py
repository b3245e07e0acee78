"""Addresses as users see them: static ones that travel, both families, and routes in the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

STATIC = "name=fixed,ip=10.50.0.10-10.50.0.12,ip=fd00:50::10,ip=fd00:50::11,ip=fd00:50::12,vip=10.50.0.100"


@pytest.fixture
def network(cluster: Cluster) -> Iterator[str]:
    cluster.run(
        "n1", "network", "create", "--subnet", "10.50.0.0/24", "--subnet", "fd00:50::/64", "--gateway", "10.50.0.254",
        "--ip-range", "10.50.0.128/25", "--aux-address", "router=10.50.0.130", "fixed"
    )  # fmt: skip
    yield "fixed"
    cluster.on("n1", "pyswarm", "service", "rm", "addressed", "chosen")
    eventually(
        lambda: cluster.on("n1", "pyswarm", "network", "rm", "-f", "fixed").returncode == 0, "the network is removed"
    )


def members(cluster: Cluster, network: str) -> dict[str, Any]:
    """Containers of the network by the name of their task."""
    (shown,) = json.loads(cluster.run("n1", "network", "inspect", network))
    return {item["Name"].rpartition(".")[0]: item for item in shown["Containers"].values()}


def test_static_addresses_stay_through_updates_and_drains(cluster: Cluster, network: str) -> None:
    cluster.run(
        "n1", "service", "create", "--name", "addressed", "--replicas", "2", "--network", STATIC,
        "--update-order", "start-first", IMAGE
    )  # fmt: skip
    cluster.run("n1", "service", "create", "--name", "chosen", "--network", network, IMAGE)
    before = members(cluster, network)
    assert [
        (before[f"addressed.{slot}"]["IPv4Address"], before[f"addressed.{slot}"]["IPv6Address"]) for slot in (1, 2)
    ] == [
        ("10.50.0.10/24", "fd00:50::10/64"),
        ("10.50.0.11/24", "fd00:50::11/64"),
    ]
    assert before["chosen.1"]["IPv4Address"] == "10.50.0.129/24"  # of the range; its service has .128
    inside = cluster.run("n1", "task", "exec", "addressed.1", "ip", "addr")
    assert "10.50.0.10/24" in inside
    assert "fd00:50::10/64" in inside

    cluster.run("n1", "service", "update", "--force", "addressed")
    after = members(cluster, network)
    assert {item["EndpointID"] for item in before.values()} & {item["EndpointID"] for item in after.values()} == {
        before["chosen.1"]["EndpointID"]
    }
    assert after["addressed.2"]["IPv4Address"] == "10.50.0.11/24"

    node = after["addressed.1"]["Node"]
    cluster.run("n1", "node", "update", "--availability", "drain", node)
    try:
        eventually(lambda: _is_elsewhere(cluster, network, node), "the task has moved with its address")
    finally:
        cluster.run("n1", "node", "update", "--availability", "active", node)


def _is_elsewhere(cluster: Cluster, network: str, node: str) -> bool:
    found = members(cluster, network).get("addressed.1")
    return found is not None and found["Node"] != node and found["IPv4Address"] == "10.50.0.10/24"


def test_what_cannot_be_had_is_refused_with_its_holder(cluster: Cluster, network: str) -> None:
    cluster.run("n1", "service", "create", "--name", "addressed", "--network", STATIC, IMAGE)
    for flags, words in (
        (
            ("--network", "name=fixed,vip=10.50.0.100"),
            "address 10.50.0.100 of network fixed is in use by service addressed",
        ),
        (
            ("--network", "name=fixed,ip=10.50.0.130"),
            "address 10.50.0.130 of network fixed is its auxiliary address router",
        ),
        (("--network", "name=fixed,ip=10.50.0.254"), "address 10.50.0.254 of network fixed is its gateway"),
    ):
        assert words in cluster.refused("n1", "service", "create", "--name", "other", *flags, IMAGE)
    assert "network fixed is in use by service addressed" in cluster.refused("n1", "network", "rm", "fixed")
    assert "which node n1 routes itself" in cluster.refused(
        "n1", "network", "create", "--subnet", "192.168.77.0/24", "other"
    )


def test_a_route_that_comes_later_is_a_warning(cluster: Cluster, network: str) -> None:
    cluster.on("n5", "ip", "route", "add", "10.50.0.64/26", "dev", "lo")
    try:
        eventually(lambda: "10.50.0.64/26" in _warnings(cluster, "network", network), "the network warns")
        assert "10.50.0.64/26" in _warnings(cluster, "node", "n5")
    finally:
        cluster.on("n5", "ip", "route", "del", "10.50.0.64/26", "dev", "lo")


def _warnings(cluster: Cluster, kind: str, name: str) -> str:
    (shown,) = json.loads(cluster.run("n1", kind, "inspect", name))
    return "; ".join(shown.get("Warnings", []))
