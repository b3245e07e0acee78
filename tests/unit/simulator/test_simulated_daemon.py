"""The simulator's daemon decides as the daemon does."""

from __future__ import annotations

import itertools

from pyswarm_common.model import ManagerStatus, Node, NodeRole, NodeSpec
from pyswarm_node import roles
from pyswarm_simulator import daemon
from pyswarm_simulator.profile import LONG, PROFILES, profile_of


def test_what_follows_from_a_node_is_the_same() -> None:
    for wanted, is_now, certificate in itertools.product(NodeRole, repeat=3):
        for is_set_up, status in itertools.product((False, True), (None, ManagerStatus(raft_id=1))):
            node = Node(id="n", spec=NodeSpec(role=wanted), role=is_now, manager_status=status)
            real = roles.next_step(node, certificate, is_manager_set_up=is_set_up, renew_at=1.0, now=0.0)
            assert daemon.next_step(node, certificate, is_set_up).name == real.name


def test_long_runs_have_every_seeds_own_weather_and_are_for_soaks_only() -> None:
    for seed in range(50):
        usual, long = profile_of(seed), profile_of(seed, LONG)
        assert long.name == f"long-{usual.name}"
        assert long.name not in PROFILES
        assert (long.cut_every, long.churn_every) == (usual.cut_every, usual.churn_every)
        assert long.fault_s > usual.fault_s
