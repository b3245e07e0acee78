"""What an agent tells of its tasks' use: of the services that are asked about, and nothing before it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from typing import Any

import pytest

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_runtime.usage import ContainerUsage, read_usage
from pyswarm_worker import statistics as module
from pyswarm_worker.statistics import Statistics


class Host:
    """One running task of service `web`, one of `db`; a clock that each look moves on."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[pb.AgentMessage] = asyncio.Queue()
        self.usages = {"c1": ContainerUsage(0, 100), "c2": ContainerUsage(0, 200)}
        self.looked: list[list[str]] = []
        self.seconds = 0.0

    def containers_of(self, services: Container[str]) -> dict[str, str]:
        tasks = {"t1": ("web", "c1"), "t2": ("db", "c2")}
        return {task: container for task, (service, container) in tasks.items() if service in services}

    async def usage(self, containers: Sequence[str]) -> Mapping[str, ContainerUsage]:
        self.looked.append(list(containers))
        found = {name: self.usages[name] for name in containers if name in self.usages}
        self.usages = {
            name: ContainerUsage(u.cpu_ns + 1_000_000_000, u.memory_bytes) for name, u in self.usages.items()
        }
        return found

    def now(self) -> float:
        self.seconds += 2.0
        return self.seconds


@pytest.fixture
def host() -> Host:
    return Host()


async def spoken(host: Host, wanted: pb.StatisticsWanted, monkeypatch: pytest.MonkeyPatch) -> pb.TaskStatistics:
    monkeypatch.setattr(module, "MIN_PERIOD_S", 0.0)
    both: Any = host
    statistics = Statistics(both, both, host.said.put_nowait, host.now)
    statistics.ask(wanted)
    async with asyncio.timeout(30):
        running = asyncio.ensure_future(statistics.run())
        try:
            return (await host.said.get()).statistics
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_cpu_is_the_average_since_the_reading_before(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    said = await spoken(host, pb.StatisticsWanted(service_ids=["web"], period_s=0.0), monkeypatch)
    assert [(usage.task_id, usage.nano_cpus, usage.memory_bytes) for usage in said.tasks] == [("t1", 500_000_000, 100)]
    assert all(looked == ["c1"] for looked in host.looked)


async def test_of_a_container_that_ended_nothing_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    del host.usages["c1"]
    said = await spoken(host, pb.StatisticsWanted(service_ids=["web", "db"], period_s=0.0), monkeypatch)
    assert [usage.task_id for usage in said.tasks] == ["t2"]


async def test_nothing_is_looked_at_while_nobody_asks(host: Host) -> None:
    both: Any = host
    statistics = Statistics(both, both, host.said.put_nowait, host.now)
    running = asyncio.ensure_future(statistics.run())
    statistics.ask(pb.StatisticsWanted(service_ids=["web"], period_s=1.0))
    statistics.ask(pb.StatisticsWanted())
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert host.said.empty()


def test_usage_by_control_groups_of_version_2(tmp_path: Any) -> None:
    group = tmp_path / "pyswarm" / "c1"
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\n")
    (group / "memory.current").write_text("5000\n")
    (group / "memory.stat").write_text("anon 100\ninactive_file 2000\n")
    assert read_usage(2, [tmp_path], "/pyswarm/c1") == ContainerUsage(1_500_000, 3000)
    assert read_usage(2, [tmp_path], "/pyswarm/gone") is None


def test_usage_by_control_groups_of_version_1(tmp_path: Any) -> None:
    cpu, memory = tmp_path / "cpu,cpuacct", tmp_path / "memory"
    for hierarchy in (cpu, memory):
        (hierarchy / "pyswarm" / "c1").mkdir(parents=True)
    (cpu / "pyswarm" / "c1" / "cpuacct.usage").write_text("1500000\n")
    (memory / "pyswarm" / "c1" / "memory.usage_in_bytes").write_text("5000\n")
    (memory / "pyswarm" / "c1" / "memory.stat").write_text("total_inactive_file 6000\n")
    assert read_usage(1, [cpu, memory], "/pyswarm/c1") == ContainerUsage(1_500_000, 0)
    assert read_usage(1, [memory], "/pyswarm/c1") is None
