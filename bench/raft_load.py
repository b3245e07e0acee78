"""Elections that nobody needs: three managers on a machine whose every core is busy with something else.

    python -m bench.raft_load [--seconds 60] [--burners 4] [--niceness 0] [--json FILE]

The burners are processes that only compute, at the same priority as the managers unless told otherwise (a long run
beside other work at that priority takes 19: then they only fill what that leaves). One client writes all the while.
Prints by how much the term rose (each election raises it), and how long writes took. No election is needed, so the
figure should be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/integration/manager"))

from manager_cluster import ManagerCluster, manager_cluster, service_spec

from pyswarm.v1 import control_pb2

_BURN = "while True: pass"


@contextlib.contextmanager
def burners(count: int, niceness: int) -> Iterator[None]:
    """Processes that keep the cores busy for as long as the block lasts."""
    command = ["nice", "-n", str(niceness), sys.executable, "-c", _BURN]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def measure(root: Path, seconds: float, count: int, niceness: int) -> dict[str, Any]:
    async with manager_cluster(root) as cluster:
        await cluster.start_three()
        before = await _term(cluster)
        with burners(count, niceness):
            latencies, failed = await _write(cluster, seconds)
            after = await _term(cluster)
        ordered = sorted(latencies)
        return {
            "seconds": seconds,
            "burners": count,
            "niceness": niceness,
            "cores": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
            "elections": after - before,
            "writes": len(ordered),
            "failed_writes": failed,
            "write_p50_ms": round(statistics.median(ordered) * 1e3, 1),
            "write_worst_ms": round(ordered[-1] * 1e3, 1),
        }


async def _term(cluster: ManagerCluster) -> int:
    """The highest that any manager knows."""
    return max([(await manager.health()).term for manager in cluster.managers])


async def _write(cluster: ManagerCluster, seconds: float) -> tuple[list[float], int]:
    """Create services, one after the other; how long each took, and how many failed."""
    leader, end = await cluster.leader(), time.monotonic() + seconds
    latencies: list[float] = []
    failed = 0
    while (started := time.monotonic()) < end:
        request = control_pb2.CreateServiceRequest(spec=service_spec(f"s{len(latencies)}-{failed}", 0))
        try:
            await leader.control.CreateService(request, timeout=10.0)
        except grpc.aio.AioRpcError:
            failed += 1
        else:
            latencies.append(time.monotonic() - started)
        await asyncio.sleep(0.1)
    return latencies, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--burners", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--niceness", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as directory:
        figures = uvloop.run(measure(Path(directory), arguments.seconds, arguments.burners, arguments.niceness))
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
