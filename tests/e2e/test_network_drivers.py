"""Networks of other drivers than overlay, as a user makes and uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from e2e_cluster import IMAGE, Cluster, eventually

HOSTS = ("n4", "n5")
"""The workers."""


@pytest.fixture(scope="module")
def swarm(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    for service in cluster.run("n1", "service", "ls", "-q").split():
        cluster.run("n1", "service", "rm", service)
    eventually(lambda: not _remove_networks(cluster), "no network is left")
    for host in HOSTS:
        cluster.on(host, "pyswarm", "network", "rm", "cfg")


def _remove_networks(cluster: Cluster) -> list[str]:
    """Those that a task is still on stay for the next round."""
    listed = cluster.run("n1", "network", "ls", "--filter", "scope=swarm", "--format", "{{.Name}}").split()
    mine = [name for name in listed if name in ("local", "lan", "wide")]
    for name in mine:
        cluster.on("n1", "pyswarm", "network", "rm", name)
    return mine


def create(swarm: Cluster, name: str, *options: str, tasks: int = 1) -> dict[str, str]:
    """A service that runs; its tasks' nodes by id."""
    swarm.run("n1", "service", "create", "-d", "--stop-grace-period", "0s", "--name", name, *options, IMAGE)
    eventually(lambda: len(swarm.running(name)) == tasks, f"{name} runs")
    return swarm.running(name)


def inside(swarm: Cluster, task: str, *argv: str) -> str:
    return swarm.run("n1", "task", "exec", task, *argv)


def address(swarm: Cluster, task: str) -> str:
    """On its first interface."""
    shown = inside(swarm, task, "ip", "-4", "-o", "address", "show", "dev", "eth0").split()
    return shown[shown.index("inet") + 1].partition("/")[0]


def test_every_node_has_networks_of_its_own(swarm: Cluster) -> None:
    listed = swarm.run("n4", "network", "ls", "--filter", "scope=local", "--format", "{{.Name}} {{.Driver}} {{.Scope}}")
    assert listed.splitlines() == ["bridge bridge local", "host host local", "none null local"]
    [inspected] = json.loads(swarm.run("n1", "network", "inspect", "bridge"))
    assert (inspected["Driver"], inspected["Scope"], inspected["ConfigOnly"]) == ("bridge", "local", False)
    assert swarm.refused("n1", "network", "rm", "host") == (
        "Error response from daemon: host is a pre-defined network and cannot be removed"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-d", "bridge", "-o", "parent=eth0"], "unknown network option 'parent': the options of driver bridge are"),
        (["-d", "macvlan", "-o", "macvlan_mode=l2"], "it must be bridge, private, vepa or passthru"),
        (["-d", "acme"], "could not find plugin acme in v1 plugin registry"),
        (["-d", "host"], 'only one instance of "host" network is allowed'),
        (["--config-from", "cfg"], "it cannot take its configuration from each"),
        (["--config-only", "--internal"], "configuration network can only contain network specific fields"),
        (["-d", "macvlan", "--config-from", "c", "--subnet", "10.1.0.0/24"], "user specified configurations are not"),
        (["--scope", "local"], "networks of one node alone are configuration-only ones"),
    ],
)
def test_what_no_driver_could_do_is_refused(swarm: Cluster, options: list[str], reason: str) -> None:
    assert reason in swarm.refused("n1", "network", "create", *options, "refused")


def test_a_bridge_joins_the_tasks_of_each_node(swarm: Cluster) -> None:
    swarm.run("n1", "network", "create", "-d", "bridge", "-o", "com.docker.network.driver.mtu=1400", "local")
    on_one = ["--network", "local", "--constraint", "node.hostname==n4"]
    create(swarm, "near", *on_one, "-p", "published=8099,target=80,mode=host")
    [client] = create(swarm, "client", *on_one)
    assert inside(swarm, client, "wget", "-qO-", "http://near/")
    assert " mtu 1400 " in inside(swarm, client, "ip", "link", "show", "eth0")
    address = swarm.lab.host("n4").address
    assert swarm.on("n5", "wget", "-qO-", f"http://{address}:8099/").returncode == 0
    assert "is in use by service" in swarm.refused("n1", "network", "rm", "local")
    swarm.run("n1", "service", "rm", "near", "client")


def test_nodes_lend_their_settings_to_a_macvlan(swarm: Cluster) -> None:
    for number, host in enumerate(HOSTS):
        given = [
            "--subnet",
            "10.211.0.0/24",
            "--gateway",
            "10.211.0.254",
            "--ip-range",
            f"10.211.0.{64 + 32 * number}/27",
        ]
        swarm.run(host, "network", "create", "--config-only", *given, "-o", "parent=eth0", "cfg")
    assert "network with name cfg already exists" in swarm.refused(
        HOSTS[0], "network", "create", "--config-only", "cfg"
    )
    swarm.run("n1", "network", "create", "-d", "macvlan", "--scope", "swarm", "--config-from", "cfg", "lan")
    tasks = create(swarm, "lan", "--network", "lan", "--mode", "global", "--constraint", "node.role==worker", tasks=2)
    found = {host: address(swarm, task) for task, host in tasks.items()}
    assert found == {"n4": "10.211.0.64", "n5": "10.211.0.96"}
    [task] = [task for task, host in tasks.items() if host == "n4"]
    assert inside(swarm, task, "wget", "-qO-", f"http://{found['n5']}/")
    swarm.run("n1", "service", "rm", "lan")


def test_a_macvlan_of_the_whole_swarm_has_names_and_virtual_addresses(swarm: Cluster) -> None:
    given = ["--subnet", "10.212.0.0/24", "-o", "parent=eth0", "-o", "macvlan_mode=bridge"]
    swarm.run("n1", "network", "create", "-d", "macvlan", *given, "wide")
    tasks = create(swarm, "wide", "--network", "wide", "--mode", "global", "--constraint", "node.role==worker", tasks=2)
    assert sorted(tasks.values()) == list(HOSTS)
    answers = {inside(swarm, task, "wget", "-qO-", "http://wide/") for task in tasks for _ in "ab"}
    assert len(answers) == 2, "the virtual address leads to both nodes"
    swarm.run("n1", "service", "rm", "wide")


def test_a_task_may_have_no_network_at_all(swarm: Cluster) -> None:
    [task] = create(swarm, "alone", "--network", "none")
    assert inside(swarm, task, "ls", "/sys/class/net").split() == ["lo"]
    swarm.run("n1", "service", "rm", "alone")
    refused = swarm.refused("n1", "service", "create", "--network", "none", "-p", "80:80", IMAGE)
    assert "the network none goes with no other, and with no published port" in refused
