"""Stories that chance tells too seldom, in the simulator: after each the cluster must become what it must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pyswarm.v1 import control_pb2
from pyswarm_common.model import Availability, NodeRole
from pyswarm_simulator.cluster import SimCluster
from pyswarm_simulator.profile import NEVER, PROFILES
from pyswarm_simulator.simulation import Story, run
from pyswarm_simulator.workload import Workload

ONE_MANAGER = replace(PROFILES["calm"], managers=1, workers=4, change_every=NEVER, heal_s=60.0)
SEEDS = range(3)


def managers_move_on(cluster: SimCluster, workload: Workload) -> Iterator[float]:
    """From n1, the only one, to n3."""
    n1, n3 = cluster.hosts["n1"], cluster.hosts["n3"]
    workload.spawn_update_node(n3.node_id, NodeRole.MANAGER, Availability.ACTIVE)
    yield 5.0
    workload.spawn_update_node(n1.node_id, NodeRole.WORKER, Availability.ACTIVE)
    yield 10.0
    assert [manager.host for manager in cluster.managers()] == ["n3"]


def while_a_node_is_without_power(cluster: SimCluster, workload: Workload) -> Iterator[float]:
    cluster.hosts["n5"].power_off()
    yield from managers_move_on(cluster, workload)
    cluster.hosts["n5"].power_on()


def while_a_node_is_cut_off(cluster: SimCluster, workload: Workload) -> Iterator[float]:
    for other in cluster.hosts:
        cluster.network.cut("n5", other)
        cluster.network.cut(other, "n5")
    yield from managers_move_on(cluster, workload)


def and_the_old_manager_leaves(cluster: SimCluster, workload: Workload) -> Iterator[float]:
    """Then only workers can say where the managers are."""
    cluster.hosts["n5"].power_off()
    yield from managers_move_on(cluster, workload)
    gone = cluster.hosts["n1"]
    gone.power_off()
    gone.is_scrapped = True
    request = control_pb2.RemoveNodeRequest(node=gone.node_id, force=True)
    workload.ask("RemoveNode", request.SerializeToString())
    yield 5.0
    cluster.hosts["n5"].power_on()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "story",
    [while_a_node_is_without_power, while_a_node_is_cut_off, and_the_old_manager_leaves],
    ids=lambda s: s.__name__,
)
def test_a_node_that_was_away_while_all_its_managers_were_replaced_finds_the_new_ones(story: Story, seed: int) -> None:
    outcome = run(seed, ONE_MANAGER, story=story)
    assert outcome.ok, outcome.violation + "\n" + "\n".join(outcome.trace[-30:])
