"""An encrypted network as a user has it: tasks reach one another, and only the nodes concerned have tunnels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_cluster import IMAGE, Cluster, eventually


@pytest.fixture(scope="module")
def sealed(cluster: Cluster) -> Iterator[Cluster]:
    """A service with a task on each of two of the five hosts, on an encrypted network."""
    cluster.run("n1", "network", "create", "-d", "overlay", "--opt", "encrypted", "sealed")
    created = [
        *("service", "create", "-q", "--name", "vault", "--replicas", "2", "--replicas-max-per-node", "1"),
        *("--network", "sealed", "--constraint", "node.role==worker", IMAGE),
    ]
    cluster.run("n1", *created)
    yield cluster
    cluster.run("n1", "service", "rm", "vault")
    eventually(lambda: cluster.on("n1", "pyswarm", "network", "rm", "sealed").returncode == 0, "the network goes")


def tunnels(cluster: Cluster, host: str) -> dict[str, float]:
    """Public key of each peer -> when there was a handshake with it; none for a host without tunnels."""
    done = cluster.on(host, "wg", "show", "all", "latest-handshakes")
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[1]: float(row[2]) for row in rows if len(row) == 3}


def test_only_the_two_hosts_concerned_have_tunnels_and_only_to_one_another(sealed: Cluster) -> None:
    assert set(sealed.running("vault").values()) == {"n4", "n5"}
    for host in ("n4", "n5"):
        eventually(lambda host=host: any(tunnels(sealed, host).values()), f"{host} has a handshake")
        assert len(tunnels(sealed, host)) == 1
    assert not any(tunnels(sealed, host) for host in ("n1", "n2", "n3"))


def test_tasks_reach_one_another_by_name(sealed: Cluster) -> None:
    ask = [
        "service",
        "create",
        "-q",
        "-d",
        "--name",
        "asker",
        "--network",
        "sealed",
        "--constraint",
        "node.hostname==n1",
    ]
    sealed.run("n1", *ask, IMAGE, "ask", "vault")
    try:

        def everyone() -> bool:
            said = sealed.on("n1", "pyswarm", "service", "logs", "--raw", "asker").stdout
            return len({line.split()[-1] for line in said.splitlines() if "answered" in line}) == 2

        eventually(everyone, "both tasks answer over the encrypted network")
        assert len(tunnels(sealed, "n1")) == 2
    finally:
        sealed.run("n1", "service", "rm", "asker")
    eventually(lambda: len(tunnels(sealed, "n4")) == 1, "the tunnel to the node that left the network goes")
