"""Managers alone, on loopback: writes per second, failover, replicas on pretended agents, memory.

    python -m bench.manager_writes [--managers 3] [--seconds 5] [--agents 20] [--replicas 100,1000]

Clients and agents share the two cores with the managers, so these are floors. Prints JSON. On a machine that others use
too, compare `cpu_ms`: user and system time per write, of the leader, the mean follower, and the clients together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/integration/manager"))

from manager_cluster import ManagerCluster, ManagerProcess, manager_cluster, scale, service_spec

from bench.memory import cpu_s, pss_mib
from pyswarm.v1 import control_pb2, types_pb2, watch_pb2, watch_pb2_grpc
from pyswarm_common.rpc import open_local_channel

CLIENTS = (1, 16, 64)


async def measure(arguments: argparse.Namespace, root: Path) -> dict[str, object]:
    async with manager_cluster(root) as cluster:
        await cluster.start()
        for _ in range(arguments.managers - 1):
            await (await cluster.join()).wait_votes()
        figures: dict[str, object] = {"managers": arguments.managers, "idle_pss_mib": _memory(cluster)}
        for clients in CLIENTS:
            figures[f"writes_{clients}_clients"] = await writes(cluster, clients, arguments.seconds)
        if arguments.agents:
            figures["replicas"] = await replicas(cluster, arguments.agents, arguments.replicas)
        if arguments.managers > 2:
            figures["leader_kill_to_write_s"] = [round(await failover(cluster), 3) for _ in range(arguments.kills)]
        figures["pss_mib"] = _memory(cluster)
        return figures


async def writes(cluster: ManagerCluster, clients: int, seconds: float) -> dict[str, object]:
    """Each client changes a label of a service of its own, as fast as it is answered."""
    manager = await cluster.leader()
    latencies: list[float] = []
    names = [f"c{clients}-{i}" for i in range(clients)]
    services = []
    for name in names:
        request = control_pb2.CreateServiceRequest(spec=service_spec(name, 0))
        services.append((await manager.control.CreateService(request)).service)
    start, cpu_before = time.monotonic(), _cpu_s(cluster, manager)
    await asyncio.gather(*(_write_until(manager, service, start + seconds, latencies) for service in services))
    elapsed, cpu_after = time.monotonic() - start, _cpu_s(cluster, manager)
    ordered = sorted(latencies)
    return {
        "per_second": round(len(ordered) / elapsed),
        "p50_ms": round(statistics.median(ordered) * 1e3, 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1e3, 2),
        "cpu_ms": {who: round((cpu_after[who] - cpu_before[who]) / len(ordered) * 1e3, 3) for who in cpu_after},
    }


def _cpu_s(cluster: ManagerCluster, leader: ManagerProcess) -> dict[str, float]:
    followers = [cpu_s(_pid(manager)) for manager in cluster.managers if manager is not leader]
    return {
        "leader": cpu_s(_pid(leader)),
        "follower": statistics.mean(followers) if followers else 0.0,
        "clients": time.process_time(),
    }


async def _write_until(manager: ManagerProcess, service: types_pb2.Service, end: float, latencies: list[float]) -> None:
    control = manager.control
    count = 0
    while (started := time.monotonic()) < end:
        count += 1
        service.spec.labels["count"] = str(count)
        request = control_pb2.UpdateServiceRequest(
            service_id=service.id, version=service.meta.version, spec=service.spec
        )
        service = (await control.UpdateService(request)).service
        latencies.append(time.monotonic() - started)


async def replicas(cluster: ManagerCluster, agents: int, counts: list[int]) -> dict[str, float]:
    """From `scale` until the manager has all of them RUNNING, on agents that start at once."""
    for _ in range(agents - len(cluster.agents)):
        await cluster.agent()
    for agent in cluster.agents:
        await agent.wait(lambda agent=agent: bool(agent.networks))
    leader = await cluster.leader()
    network = await leader.control.CreateNetwork(
        control_pb2.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="bench", subnets=["10.77.0.0/16"]))
    )
    spec = service_spec("bench", 0, network.network.id)
    spec.task.placement.constraints.append("node.role==worker")
    service = (await leader.control.CreateService(control_pb2.CreateServiceRequest(spec=spec))).service
    out = {}
    for count in counts:
        start = time.monotonic()
        await scale_and_wait(leader, service.id, count)
        out[str(count)] = round(time.monotonic() - start, 3)
        start = time.monotonic()
        await scale(leader, "bench", 0)
        while any(agent.tasks for agent in cluster.agents):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        out[f"{count} to 0"] = round(time.monotonic() - start, 3)
    return out


async def scale_and_wait(leader: ManagerProcess, service_id: str, count: int) -> None:
    stub = watch_pb2_grpc.WatchStub(leader.channel)
    request = watch_pb2.WatchRequest(kinds=[watch_pb2.OBJECT_KIND_TASK], service_ids=[service_id])
    call = stub.Watch(request)
    await call.read()
    await scale(leader, "bench", count)
    running: set[str] = set()
    while len(running) < count:
        for event in (await call.read()).events:
            if event.task.status.state == types_pb2.TASK_STATE_RUNNING:
                running.add(event.task.id)
    call.cancel()


async def failover(cluster: ManagerCluster) -> float:
    """Kill -9 of the leader until the next write is accepted by a survivor."""
    leader = await cluster.leader()
    survivor = next(manager for manager in cluster.managers if manager is not leader)
    await survivor.health()
    channel = open_local_channel(str(survivor.paths.socket))
    start = time.monotonic()
    killed = asyncio.ensure_future(leader.kill())
    count = 0
    while True:
        count += 1
        name = f"f{int(start * 1e6)}-{count}"
        request = control_pb2.CreateServiceRequest(spec=service_spec(name, 0))
        try:
            await survivor.control.CreateService(request, timeout=5.0)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.01)
        else:
            break
    seconds = time.monotonic() - start
    await killed
    await channel.close(None)
    await leader.start()
    await leader.wait_votes()
    await leader.wait_follows(await cluster.leader())
    return seconds


def _memory(cluster: ManagerCluster) -> list[float]:
    """Proportional set size of each manager."""
    return [pss_mib(_pid(manager)) for manager in cluster.managers]


def _pid(manager: ManagerProcess) -> int:
    assert manager.process is not None
    return int(manager.process.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--managers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--replicas", type=lambda text: [int(part) for part in text.split(",")], default=[100, 1000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as directory:
        print(json.dumps(uvloop.run(measure(arguments, Path(directory))), indent=2))


if __name__ == "__main__":
    main()
