"""Nothing is stale once a storm is over: names, tunnels, virtual addresses, published ports, on every node.

The whole measure (150 changes, cuts of 10 to 30 s) is `python -m bench.breaker`; here a shorter one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from breaker import NETWORKS, Measure, Storm, inspect, settled
from e2e_cluster import Cluster, eventually

SHORT = Measure(services=14, redeploys=25, cuts=2, cut_s=(4.0, 8.0), burners=1)
QUIET_S = 5.0
"""How long entries may be wrong after the last change."""


@pytest.fixture
def networks(cluster: Cluster) -> Iterator[Cluster]:
    for name in NETWORKS:
        cluster.run("n1", "network", "create", "--driver", "overlay", name)
    try:
        yield cluster
    finally:
        names = cluster.run("n1", "service", "ls", "--format", "{{.Name}}").split()
        ours = [name for name in names if name == "crashing" or name[1:].isdigit()]
        if ours:
            cluster.on("n1", "pyswarm", "service", "rm", *ours)
        for name in NETWORKS:
            eventually(lambda name=name: cluster.on("n1", "pyswarm", "network", "rm", name).returncode == 0, "unused")


def test_nothing_is_stale_after_a_storm(networks: Cluster) -> None:
    Storm(networks, SHORT, seed=7).run()
    settled(networks)
    time.sleep(QUIET_S)
    known = settled(networks)
    assert inspect(networks, known) == []
