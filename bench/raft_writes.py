"""Writes per second through Raft: 1 and 3 managers as processes on loopback, gRPC and lanes, without TLS; SQLite logs.

    .venv/bin/python bench/raft_writes.py [--seconds 3] [--payload 200] [--json FILE]

Each manager is a process of its own with nothing but a RaftNode; the clients are coroutines in the leader's process, so
what is measured is consensus, without the API in front of it. Also measures the time from `kill -9` of the leader to
the next write that another manager commits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import grpc
import uvloop

from pyswarm.v1 import raft_pb2_grpc
from pyswarm_common.errors import PyswarmError
from pyswarm_manager.raft.driver import RaftConfig, RaftNode
from pyswarm_manager.raft.lanes.receiving import Lanes
from pyswarm_manager.raft.lanes.sending import SendingLane, open_lane
from pyswarm_manager.raft.servicer import RaftServicer
from pyswarm_manager.raft.storage.sealer import AesGcmSealer
from pyswarm_manager.raft.storage.sqlite import SqliteStorage
from pyswarm_manager.raft.transport import GrpcTransport

CLUSTER = "bench"


class Counter:
    """The least a state machine can do."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, index: int, term: int, data: bytes) -> object:
        self.count += 1
        return None

    def capture(self) -> Callable[[], bytes]:
        count = self.count
        return lambda: count.to_bytes(8, "big")

    def restore(self, index: int, data: bytes) -> None:
        self.count = int.from_bytes(data, "big")


async def measure(node: RaftNode, clients: int, seconds: float, payload: bytes) -> dict[str, Any]:
    """Closed-loop clients for a while."""
    end = time.perf_counter() + seconds
    latencies: list[float] = []

    async def client() -> None:
        while (start := time.perf_counter()) < end:
            await node.propose(payload)
            latencies.append(time.perf_counter() - start)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - began
    latencies.sort()
    return {
        "clients": clients,
        "writes_per_s": round(len(latencies) / took),
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 2),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
    }


async def manager(spec: dict[str, Any]) -> None:
    """One manager process: prints a line of JSON for each figure asked for on stdin."""
    raft_id, addresses = spec["id"], {int(i): a for i, a in spec["addresses"].items()}
    storage = SqliteStorage(Path(spec["path"]), AesGcmSealer(b"k" * 32))
    lanes, doors = Lanes(), {addresses[int(i)]: port for i, port in spec["doors"].items()}

    async def lane_to(address: str, ticket: bytes) -> SendingLane:
        return await open_lane("127.0.0.1", doors[address], None, None, ticket)

    own = addresses[raft_id]
    transport = GrpcTransport(CLUSTER, raft_id, own, grpc.aio.insecure_channel, open_lane=lane_to)
    config = RaftConfig(raft_id, addresses[raft_id])
    node = await RaftNode.open(config, storage, transport, Counter(), addresses)
    server = grpc.aio.server()
    raft_pb2_grpc.add_RaftServicer_to_server(RaftServicer(node, CLUSTER, lanes=lanes), server)
    server.add_insecure_port(addresses[raft_id])
    await server.start()
    await asyncio.get_running_loop().create_server(lanes.protocol, "127.0.0.1", doors[own])
    async with asyncio.TaskGroup() as group:
        group.create_task(node.run())
        group.create_task(announce(node))
        async for line in lines():
            order = json.loads(line)
            result = await measure(node, order["clients"], order["seconds"], b"x" * order["payload"])
            print(json.dumps(result), flush=True)
        await node.close(transfer=False)
    await server.stop(None)


async def announce(node: RaftNode) -> None:
    """Say when this manager leads and has made a write."""
    async for leadership in node.subscribe_leadership():
        if leadership.is_leader:
            try:
                await node.propose(b"first")
            except PyswarmError:
                continue
            print(json.dumps({"leads": node.raft_id}), flush=True)


async def lines() -> Any:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line


class Cluster:
    """The manager processes, and their answers."""

    def __init__(self, size: int, directory: Path) -> None:
        ports = free_ports(2 * size)
        addresses = {i: f"127.0.0.1:{port}" for i, port in enumerate(ports[:size], 1)}
        doors = dict(enumerate(ports[size:], 1))
        self.processes: dict[int, subprocess.Popen[str]] = {}
        for i in addresses:
            spec = {"id": i, "addresses": addresses, "doors": doors, "path": str(directory / f"{size}-{i}.db")}
            arguments = [sys.executable, __file__, "--manager", json.dumps(spec)]
            self.processes[i] = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )

    def wait_leader(self) -> int:
        """The first manager that announces a write of its own."""
        with selectors.DefaultSelector() as selector:
            for i in self.processes:
                selector.register(self._pipes(i)[1], selectors.EVENT_READ, i)
            while True:
                for key, _ in selector.select(timeout=30):
                    i = int(key.data)
                    line = self._pipes(i)[1].readline()
                    if line and "leads" in json.loads(line):
                        return i

    def ask(self, leader: int, order: dict[str, Any]) -> dict[str, Any]:
        """Have the leader measure."""
        orders, answers = self._pipes(leader)
        orders.write(json.dumps(order) + "\n")
        answer: dict[str, Any] = json.loads(answers.readline())
        return answer

    def _pipes(self, i: int) -> tuple[IO[str], IO[str]]:
        process = self.processes[i]
        assert process.stdin is not None
        assert process.stdout is not None
        return process.stdin, process.stdout

    def kill(self, i: int) -> None:
        """kill -9."""
        pipes = self._pipes(i)
        process = self.processes.pop(i)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for pipe in pipes:
            pipe.close()

    def stop(self) -> None:
        """End all."""
        for i in list(self.processes):
            self.kill(i)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def run(seconds: float, payload: int, kills: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for size in (1, 3):
        with tempfile.TemporaryDirectory(prefix="pyswarm-bench-raft-") as directory:
            cluster = Cluster(size, Path(directory))
            try:
                leader = cluster.wait_leader()
                for clients in (1, 16, 64):
                    order = {"clients": clients, "seconds": seconds, "payload": payload}
                    rows.append({"managers": size, **cluster.ask(leader, order)})
                    print(rows[-1], flush=True)
            finally:
                cluster.stop()
    failovers = [failover() for _ in range(kills)]
    if failovers:
        rows.append({"managers": 3, "leader_kill_to_write_s": sorted(failovers)})
        print(rows[-1])
    return rows


def failover() -> float:
    """Seconds from kill -9 of the leader to the first write committed by another."""
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-raft-") as directory:
        cluster = Cluster(3, Path(directory))
        try:
            leader = cluster.wait_leader()
            time.sleep(1)
            start = time.monotonic()
            cluster.kill(leader)
            cluster.wait_leader()
            return round(time.monotonic() - start, 3)
        finally:
            cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manager", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--payload", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.manager:
        uvloop.run(manager(json.loads(arguments.manager)))
        return
    rows = run(arguments.seconds, arguments.payload, arguments.kills)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
