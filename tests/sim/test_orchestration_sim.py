"""Autoscaling, secrets and configs, taints, priorities, devices, balance and drains with a deadline, in the simulator.

ORCHESTRATION_SEEDS=200 runs more; `pyswarm simulate soak --profile orchestration --seeds N` runs thousands.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pyswarm.v1 import control_pb2
from pyswarm_common.codec import to_proto
from pyswarm_common.model import AutoscaleSpec, ContainerSpec, ResourceRequirements, Resources, ServiceSpec, TaskSpec
from pyswarm_simulator.checks.settled import AIM_BYTES
from pyswarm_simulator.cluster import SimCluster
from pyswarm_simulator.profile import NEVER, PROFILES
from pyswarm_simulator.simulation import Story, run
from pyswarm_simulator.soak import run_quietly
from pyswarm_simulator.workload import Workload

SEEDS = int(os.environ.get("ORCHESTRATION_SEEDS", "4"))
QUIET = replace(PROFILES["calm"], services=0, change_every=NEVER, registers=0, heal_s=120.0)


@pytest.mark.parametrize("profile", ["orchestration", "scaling"])
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.timeout(180)
def test_orchestration_under_faults(seed: int, profile: str) -> None:
    outcome = run_quietly(seed, profile)
    assert outcome.ok, f"seed {seed}: {outcome.violation}\n" + "\n".join(outcome.trace[-40:])


def leader_dies(after_s: float) -> Story:
    """Twice as many tasks are needed; the leader dies so long after it has decided on them."""

    def story(cluster: SimCluster, workload: Workload) -> Iterator[float]:
        scale = AutoscaleSpec(
            min_replicas=1, max_replicas=8, memory_percent=50, scale_down_window_s=12.0, scale_up_window_s=0.0
        )
        limits = Resources(memory_bytes=2 * AIM_BYTES)
        task = TaskSpec(
            container=ContainerSpec(image="docker.io/library/app:1"), resources=ResourceRequirements(limits=limits)
        )
        spec = ServiceSpec(name="o1", replicas=2, task=task, autoscale=scale)
        asked = workload.ask("CreateService", control_pb2.CreateServiceRequest(spec=to_proto(spec)).SerializeToString())
        yield 2.0
        service_id = asked.result()
        assert isinstance(service_id, str)
        cluster.demands[service_id] = 2 * AIM_BYTES
        yield 30.0
        cluster.demands[service_id] = 4 * AIM_BYTES
        for _ in range(20_000):
            status = cluster.stores.content.services[service_id].autoscale_status
            if status is not None and status.decisions:
                break
            yield 0.001
        assert status is not None
        assert [decision.to_replicas for decision in status.decisions] == [4]
        yield after_s
        leader = cluster.leader()
        assert leader is not None
        host = cluster.hosts[leader.host]
        host.kill_manager()
        yield 2.0
        cluster.restart_manager(host)
        yield 60.0
        service = cluster.stores.content.services[service_id]
        assert service.autoscale_status is not None
        assert [decision.to_replicas for decision in service.autoscale_status.decisions] == [4], "taken once, and kept"
        assert service.spec.replicas == 2

    return story


@pytest.mark.parametrize("after_ms", [0, 1, 2, 3, 5, 8, 15, 40, 100, 400])
def test_a_decision_outlives_the_leader_that_took_it(after_ms: int) -> None:
    """From the moment in which the first manager knows of it, over the making of tasks, to their start."""
    outcome = run(1, QUIET, story=leader_dies(after_ms / 1000))
    assert outcome.ok, outcome.violation + "\n" + "\n".join(outcome.trace[-30:])
