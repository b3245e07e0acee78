"""The same story in two processes with different hash seeds ends in equal tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STORY = """
from planner_world import World
from pyswarm_common.model import EndpointSpec, NodeState, PortConfig
from pyswarm_manager.store.digest import digest

world = World()
for name in ("alpha", "beta", "gamma", "delta"):
    world.node(name, zone=name[0])
world.network("ingress", ingress=True)
for name in ("front", "back"):
    world.network(name)
for name in ("web", "api", "db"):
    world.service(name, 7, networks=["front", "back"], endpoint=EndpointSpec(ports=(PortConfig(target_port=80),)))
world.settle()
world.image("web", "img:2")
world.node_state("beta", NodeState.DOWN)
world.drain("gamma")
world.settle(60)
world.respec("api", replicas=2)
world.report(world.running("db")[0], 704)
world.settle(60)
print(digest(world.tables))
"""


def told(hash_seed: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", STORY], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_hash_seeds_make_no_difference() -> None:
    assert told("1") == told("2")
    assert len(told("3").strip()) == 64
