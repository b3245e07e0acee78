"""Many nodes on one leader, by real gRPC and mTLS: what they cost at rest, and how fast services run on them.

    python -m bench.agents [--agents 1000] [--replicas 10000] [--managers 3] [--processes 4] [--rest 20] [--network]
                           [--profile FILE] [--json FILE]

The agents are light (`bench.light_agents`): real sessions, no containers. Managers, agents and this process share the
machine's cores, so what is told beside seconds is the CPU that the leader used: compare that on a machine that does
other work too. `--profile` writes what py-spy saw of the leader while the largest service started, as a speedscope
file. Prints JSON; the machine's load average is in it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/integration/manager"))

from manager_cluster import ManagerCluster, ManagerProcess, manager_cluster, scale, service_spec

from bench.memory import cpu_s, pss_mib
from pyswarm.v1 import control_pb2, types_pb2

_ROOT = Path(__file__).parent.parent
_JOINS_AT_ONCE = 8
_POLL_S = 0.1
_TIMEOUT_S = 180.0


class Agents:
    """The processes that pretend to be nodes."""

    def __init__(self) -> None:
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self, folders: list[Path], managers: list[str]) -> None:
        """One process per folder of identities."""
        for folder in folders:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.light_agents", str(folder), *managers),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=64 << 20,
                cwd=_ROOT,
            )
            self._processes.append(process)

    async def report(self) -> dict[str, Any]:
        """What all of them counted, together."""
        parts = await asyncio.gather(*(self._ask(process) for process in self._processes))
        total: dict[str, Any] = {name: sum(part[name] for part in parts) for name in _SUMS}
        total |= {name: max(part[name] for part in parts) for name in _LATEST}
        reasons: Counter[str] = Counter()
        for part in parts:
            reasons.update(part["reasons"])
        total["reasons"] = dict(reasons)
        return total | {"round_trips": sorted(trip for part in parts for trip in part["round_trips"])}

    async def wait(self, **wanted: int) -> dict[str, Any]:
        """Until each of these counts is as wanted."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            report = await self.report()
            if all(report[name] == count for name, count in wanted.items()):
                return report
            if time.monotonic() > deadline:
                raise TimeoutError(f"{wanted} did not come: {report | {'round_trips': len(report['round_trips'])}}")
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        answer: dict[str, Any] = json.loads(await process.stdout.readline())
        return answer


_SUMS = ("sessions", "opened", "running", "acknowledged", "cpu_s")
_LATEST = ("told_at", "acknowledged_at")


@contextlib.asynccontextmanager
async def light_agents(cluster: ManagerCluster, root: Path, count: int, processes: int) -> AsyncIterator[Agents]:
    """So many nodes that have joined, in so many processes."""
    folders = [root / f"agents-{number}" for number in range(processes)]
    limit = asyncio.Semaphore(_JOINS_AT_ONCE)
    leader = await cluster.leader()

    async def join(number: int) -> None:
        async with limit:
            identity = await cluster.obtain(leader, cluster.tokens.worker)
        identity.save(folders[number % processes] / f"{number:05}")

    await asyncio.gather(*(join(number) for number in range(count)))
    agents = Agents()
    try:
        await agents.start(folders, [leader.address, *(m.address for m in cluster.managers if m is not leader)])
        yield agents
    finally:
        await agents.stop()


async def measure(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    async with manager_cluster(root) as cluster:
        await cluster.start()
        for _ in range(arguments.managers - 1):
            await (await cluster.join()).wait_votes()
        started = time.monotonic()
        async with light_agents(cluster, root, arguments.agents, arguments.processes) as agents:
            await agents.wait(sessions=arguments.agents)
            leader = await cluster.leader()
            term = (await leader.health()).term
            figures: dict[str, Any] = {
                "agents": arguments.agents,
                "managers": arguments.managers,
                "joined_s": round(time.monotonic() - started, 1),
                "sessions_opened_by_then": (await agents.report())["opened"],
                "at_rest": await at_rest(agents, leader, arguments.rest),
            }
            await create_service(leader, on_network=arguments.network)
            for count in arguments.replicas:
                profile = arguments.profile if count == max(arguments.replicas) else None
                async with profiled(leader, profile):
                    figures[f"replicas_{count}"] = await replicas(agents, leader, count)
            figures["after_that_at_rest"] = await at_rest(agents, leader, arguments.rest)
            figures["leader_pss_mib"] = pss_mib(pid(leader))
            # Zero, or these figures are of several leaders.
            figures["elections"] = (await leader.health()).term - term
            last = await agents.report()
            figures["sessions_opened"], figures["sessions_broken"] = last["opened"], last["reasons"]
            figures["load_average"] = [round(load, 1) for load in os.getloadavg()]
            return figures


async def create_service(leader: ManagerProcess, *, on_network: bool) -> None:
    """Without replicas yet, and only for workers."""
    spec = service_spec("bench", 0, await overlay(leader) if on_network else "")
    spec.task.placement.constraints.append("node.role==worker")
    await leader.control.CreateService(control_pb2.CreateServiceRequest(spec=spec))


async def at_rest(agents: Agents, leader: ManagerProcess, seconds: float) -> dict[str, float]:
    """While nothing happens: the leader's CPU, and how long heartbeats wait for their answers."""
    await asyncio.sleep(3.0)
    await agents.report()
    before, started = cpu_s(pid(leader)), time.monotonic()
    await asyncio.sleep(seconds)
    cores = (cpu_s(pid(leader)) - before) / (time.monotonic() - started)
    trips = (await agents.report())["round_trips"]
    return {
        "leader_cores": round(cores, 3),
        "heartbeats_per_s": round(len(trips) / seconds, 1),
        "heartbeat_p50_ms": statistics.median(trips),
        "heartbeat_p99_ms": trips[int(len(trips) * 0.99)],
        "heartbeat_max_ms": trips[-1],
    }


async def replicas(agents: Agents, leader: ManagerProcess, count: int) -> dict[str, float]:
    """From `scale` until the last agent was told of its last task, and until the last RUNNING was committed."""
    base = (await agents.report())["acknowledged"]
    before, started = cpu_s(pid(leader)), time.monotonic()
    await scale(leader, "bench", count)
    accepted = time.monotonic()
    report = await agents.wait(running=count, acknowledged=base + count)
    used = _used(leader, before)
    stopping = time.monotonic()
    await scale(leader, "bench", 0)
    await agents.wait(running=0)
    return {
        "accepted_s": round(accepted - started, 3),
        "assigned_s": round(report["told_at"] - started, 3),
        "running_s": round(report["acknowledged_at"] - started, 3),
        "leader_cpu_s": used,
        "to_0_s": round(time.monotonic() - stopping, 3),
    }


@contextlib.asynccontextmanager
async def profiled(leader: ManagerProcess, path: Path | None) -> AsyncIterator[None]:
    """What py-spy sees of the leader meanwhile."""
    if path is None:
        yield
        return
    process = await asyncio.create_subprocess_exec(
        *("py-spy", "record", "--format", "speedscope", "--rate", "100", "--nonblocking", "--duration", "600"),
        *("--output", str(path), "--pid", str(pid(leader))),
        stdout=asyncio.subprocess.DEVNULL,
    )
    await asyncio.sleep(1.0)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


async def overlay(leader: ManagerProcess) -> str:
    """A network with room for everything."""
    spec = types_pb2.NetworkSpec(name="bench", subnets=["10.77.0.0/16"])
    answer = await leader.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=spec))
    return str(answer.network.id)


def _used(leader: ManagerProcess, before: float) -> float:
    return round(cpu_s(pid(leader)) - before, 2)


def pid(manager: ManagerProcess) -> int:
    assert manager.process is not None
    return int(manager.process.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--managers", type=int, default=3)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rest", type=float, default=20.0)
    parser.add_argument("--network", action="store_true", help="the service is on an overlay network")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--replicas", type=lambda text: [int(part) for part in text.split(",")], default=[10_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as directory:
        figures = uvloop.run(measure(arguments, Path(directory)))
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
