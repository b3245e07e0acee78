"""A manager that stands still costs the others no memory, and catches up when it goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from manager_cluster import ManagerProcess, manager_cluster, service_spec

from pyswarm.v1 import control_pb2, types_pb2

MIB = 1 << 20
ARGUMENT = 120_000
"""Bytes of one environment variable; a longer one is refused for its own sake."""


def _large_spec(fill: str) -> types_pb2.ServiceSpec:
    """Nearly as large as a spec may be; an update of it carries the previous one too, so its entry is twice that."""
    spec = service_spec("big", 0)
    spec.task.container.env.extend(f"V{n}=" + fill * ARGUMENT for n in range(4))
    return spec


@pytest.mark.timeout(120)
async def test_a_frozen_follower_costs_the_leader_no_memory(tmp_path: Path) -> None:
    async with manager_cluster(tmp_path) as cluster:
        await cluster.start_three()
        leader = await cluster.leader()
        frozen = next(manager for manager in cluster.managers if manager is not leader)
        request = control_pb2.CreateServiceRequest(spec=_large_spec("x"))
        service = (await leader.control.CreateService(request)).service
        service, usual = await _peak_of_rewriting(leader, service)
        os.kill(_pid(frozen), signal.SIGSTOP)
        try:
            service, peak = await _peak_of_rewriting(leader, service)
        finally:
            os.kill(_pid(frozen), signal.SIGCONT)
        # One peer's queue (32 MiB), its lane's (4 MiB), and what the allocator makes of them.
        assert peak - usual < 100 * MIB
        await frozen.wait_follows(leader, (await leader.health()).applied_index)


async def _peak_of_rewriting(leader: ManagerProcess, service: types_pb2.Service) -> tuple[types_pb2.Service, int]:
    """Write 250 MB of entries: the log is shortened several times. The most memory that the leader held."""
    peak = 0
    for _ in range(10):
        service = await _rewrite(leader, service, 25)
        peak = max(peak, _rss_bytes(leader))
    return service, peak


async def _rewrite(leader: ManagerProcess, service: types_pb2.Service, times: int) -> types_pb2.Service:
    """Change all of the spec so many times."""
    for n in range(times):
        spec = _large_spec(chr(ord("a") + n % 26))
        request = control_pb2.UpdateServiceRequest(service_id=service.id, version=service.meta.version, spec=spec)
        service = (await leader.control.UpdateService(request)).service
    return service


def _rss_bytes(manager: ManagerProcess) -> int:
    status = Path(f"/proc/{_pid(manager)}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * 1024


def _pid(manager: ManagerProcess) -> int:
    assert manager.process is not None
    return manager.process.pid
