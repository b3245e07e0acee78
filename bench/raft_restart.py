"""Restart of a manager with many objects: seconds until it has all of them again, and the memory they take.

    python -m bench.raft_restart [--objects 100000] [--entries 19000] [--json FILE]

Everything is real but the API in front: SqliteStorage, RaftNode (a sole voter) and Store, in a process of its own for
each step. Restarted twice: from a snapshot alone, and from a snapshot with a log of `--entries` entries after it, which
is as long as the log gets before the next snapshot. Also measures how long the event loop stands still while a snapshot
is made.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from pyswarm_common.model import (
    ContainerSpec,
    NetworkAttachment,
    Node,
    Service,
    ServiceSpec,
    Task,
    TaskSpec,
    TaskState,
    TaskStatus,
)
from pyswarm_manager.raft.driver import RaftConfig, RaftNode
from pyswarm_manager.raft.memory_transport import MemoryTransport, Switchboard
from pyswarm_manager.raft.storage.sealer import AesGcmSealer
from pyswarm_manager.raft.storage.sqlite import SqliteStorage
from pyswarm_manager.store.changes import Change, Create, SetTaskStatus
from pyswarm_manager.store.store import Store

RAFT_ID = 1
TASKS_PER_SERVICE = 100
NODES = 100


def objects(count: int) -> Iterator[list[Change]]:
    """Change sets that create so many objects: nodes, services, and tasks that run with an address each."""
    yield [Create(Node(id=f"node{n:021d}")) for n in range(NODES)]
    tasks = count - NODES - count // TASKS_PER_SERVICE
    for number in range(0, tasks, TASKS_PER_SERVICE):
        service = _service(number)
        running = (_task(n, service) for n in range(number, min(number + TASKS_PER_SERVICE, tasks)))
        yield [Create(service), *map(Create, running)]


def _service(number: int) -> Service:
    container = ContainerSpec(image="registry.example/web:1.2.3", env=(f"N={number}",), labels={"tier": "web"})
    spec = ServiceSpec(name=f"service{number}", replicas=TASKS_PER_SERVICE, task=TaskSpec(container=container))
    return Service(id=f"svc{number:022d}", spec=spec)


def _task(number: int, service: Service) -> Task:
    return Task(
        id=f"task{number:021d}",
        service_id=service.id,
        service_name=service.spec.name,
        slot=number % TASKS_PER_SERVICE + 1,
        node_id=f"node{number % NODES:021d}",
        spec=service.spec.task,
        spec_version=1,
        desired_state=TaskState.RUNNING,
        status=TaskStatus(state=TaskState.STARTING, timestamp=1.7e9 + number),
        networks=(NetworkAttachment(network_id="net0", addresses=(f"10.{number >> 16}.{number >> 8 & 255}.1",)),),
    )


class Member:
    """One manager's state, open and running."""

    def __init__(self, path: Path, **limits: int) -> None:
        self.store = Store(time.time)
        self._path, self._limits = path, limits
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Member:
        first = None if self._path.exists() else {RAFT_ID: "here:1"}
        self.began = time.perf_counter()
        storage = SqliteStorage(self._path, AesGcmSealer(bytes(32)))
        config = RaftConfig(RAFT_ID, "here:1", **self._limits)
        self.node = await RaftNode.open(config, storage, MemoryTransport(RAFT_ID, Switchboard()), self.store, first)
        self.opened_s = time.perf_counter() - self.began
        self.store.connect(self.node)
        self._task = asyncio.create_task(self.node.run())
        while not self.node.is_leader:
            await self.node.wait_leadership_change(self.node.leadership)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.node.close()
        assert self._task is not None
        await self._task


async def fill(path: Path, count: int) -> dict[str, Any]:
    """Create the objects; the last entry brings a snapshot of all of them. The loop's longest stall meanwhile."""
    async with Member(path, snapshot_entries=10**9) as member:
        for changes in objects(count):
            await member.store.propose(changes)
        stalls: list[float] = []
        meter = asyncio.create_task(_measure_stalls(stalls))
        await asyncio.sleep(0.1)
        loop = member.node._loop
        loop.config = RaftConfig(RAFT_ID, "here:1", snapshot_entries=1)
        await member.store.propose([Create(Node(id="last"))])
        loop.config = RaftConfig(RAFT_ID, "here:1", snapshot_entries=10**9)
        began = time.perf_counter()
        while loop.core.state.log.snapshot.index == 0:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.005)
        took = time.perf_counter() - began
        meter.cancel()
        bytes_ = len(loop.core.state.log.snapshot.data)
        return {
            "snapshot_mib": round(bytes_ / 2**20, 1),
            "snapshot_s": round(took, 3),
            "longest_stall_ms": round(max(stalls) * 1e3, 1),
        }


async def _measure_stalls(stalls: list[float]) -> None:
    """How long each turn of the event loop takes while there is nothing to do but this."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0)
        stalls.append(time.perf_counter() - began)


async def lengthen(path: Path, entries: int) -> dict[str, Any]:
    """A log of so many entries after the snapshot."""
    async with Member(path, snapshot_entries=10**9) as member:
        ids = list(member.store.view.tasks)

        async def client(first: int) -> None:
            for n in range(first, entries, 64):
                status = TaskStatus(state=TaskState.RUNNING, timestamp=1.8e9 + n)
                await member.store.propose([SetTaskStatus(ids[n % len(ids)], status)])

        await asyncio.gather(*(client(first) for first in range(64)))
    return {}


async def restart(path: Path) -> dict[str, Any]:
    """Open it again, and count."""
    before = _rss_mib()
    async with Member(path, snapshot_entries=10**9) as member:
        view = member.store.view
        return {
            "restart_s": round(time.perf_counter() - member.began, 2),
            "open_s": round(member.opened_s, 2),
            "tasks": len(view.tasks),
            "rss_mib": round(_rss_mib(), 1),
            "mib_per_10000_tasks": round((_rss_mib() - before) / len(view.tasks) * 10_000, 1),
        }


def _rss_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) / 1024


def _step(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "bench.raft_restart", *arguments], check=True, stdout=subprocess.PIPE)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def run(count: int, entries: int) -> dict[str, Any]:
    """Every step in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-restart-") as directory:
        path = str(Path(directory) / "raft.db")
        figures = {"objects": count, **_step("--step", "fill", "--path", path, "--objects", str(count))}
        figures["from_snapshot"] = _step("--step", "restart", "--path", path)
        _step("--step", "lengthen", "--path", path, "--entries", str(entries))
        figures[f"from_snapshot_and_{entries}_entries"] = _step("--step", "restart", "--path", path)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--entries", type=int, default=19_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", choices=("fill", "lengthen", "restart"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.step:
        case "fill":
            figures = uvloop.run(fill(arguments.path, arguments.objects))
        case "lengthen":
            figures = uvloop.run(lengthen(arguments.path, arguments.entries))
        case "restart":
            figures = uvloop.run(restart(arguments.path))
        case _:
            figures = run(arguments.objects, arguments.entries)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
