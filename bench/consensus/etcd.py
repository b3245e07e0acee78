"""etcd, through its gRPC API v3 with a grpc.aio client. A write puts a key.

The three messages that are needed are put together by hand (etcd's api/etcdserverpb/rpc.proto), so that the comparison
needs nothing but the `etcd` binary (Debian: etcd-server).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from bench.consensus.system import RefusedError
from bench.memory import pss_mib

BINARY = "etcd"


def is_installed() -> bool:
    return shutil.which(BINARY) is not None


class Etcd:
    """Three etcd processes on loopback, as Debian ships them: plain TCP between them, one fsync per batch."""

    name = "etcd"
    attempt_s = 0.25

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        ports = _free_ports(6)
        self._peers = [f"http://127.0.0.1:{port}" for port in ports[:3]]
        self._clients = [f"127.0.0.1:{port}" for port in ports[3:]]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * 3

    def start(self, member: int) -> None:
        members = ",".join(f"m{i}={peer}" for i, peer in enumerate(self._peers))
        client = f"http://{self._clients[member]}"
        argv = [BINARY, "--name", f"m{member}", "--data-dir", str(self._directory / f"m{member}")]
        argv += ["--initial-cluster", members, "--initial-cluster-state", "new"]
        argv += ["--listen-peer-urls", self._peers[member], "--initial-advertise-peer-urls", self._peers[member]]
        argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--log-level", "error"]
        with (self._directory / f"m{member}.log").open("ab") as log:
            self._processes[member] = subprocess.Popen(argv, stdout=log, stderr=log)

    def stop(self) -> None:
        for process in self._processes:
            if process is not None:
                process.kill()
                process.wait()

    async def leader(self) -> int:
        while True:
            for member, process in enumerate(self._processes):
                if process is not None and process.poll() is None and await self._leads(member):
                    return member
            await asyncio.sleep(0.02)

    async def _leads(self, member: int) -> bool:
        """Maintenance.Status: header.member_id equals leader."""
        async with grpc.aio.insecure_channel(self._clients[member]) as channel:
            try:
                answer = await channel.unary_unary("/etcdserverpb.Maintenance/Status")(b"", timeout=2.0)
            except grpc.aio.AioRpcError:
                return False
        fields = _fields(answer)
        leader, header = fields.get(4, 0), fields.get(1, b"")
        return bool(leader) and isinstance(header, bytes) and _fields(header).get(2) == leader

    @contextlib.asynccontextmanager
    async def client(self, member: int, owner: str) -> AsyncIterator[EtcdClient]:
        async with grpc.aio.insecure_channel(self._clients[member]) as channel:
            yield EtcdClient(channel, owner)

    async def kill(self, member: int) -> None:
        process = self._processes[member]
        assert process is not None
        process.kill()
        process.wait()

    async def revive(self, member: int) -> None:
        self.start(member)
        async with self.client(member, "revived") as client:
            while True:
                with contextlib.suppress(RefusedError):
                    return await client.read()
                await asyncio.sleep(0.05)

    def memory_mib(self) -> list[float]:
        return [pss_mib(process.pid) for process in self._processes if process is not None]


class EtcdClient:
    """One channel, one key."""

    def __init__(self, channel: grpc.aio.Channel, owner: str) -> None:
        self._put = channel.unary_unary("/etcdserverpb.KV/Put")
        self._range = channel.unary_unary("/etcdserverpb.KV/Range")
        self._owner = owner

    async def create(self, name: str) -> None:
        await _answered(self._put(_field(1, name) + _field(2, name)))

    async def write(self, value: str) -> None:
        await _answered(self._put(_field(1, self._owner) + _field(2, value)))

    async def read(self) -> None:
        await _answered(self._range(_field(1, self._owner)))


async def _answered(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        raise RefusedError(error.details()) from error


def _field(number: int, text: str) -> bytes:
    """A length-delimited field of protobuf's wire format."""
    data = text.encode()
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(message: bytes) -> dict[int, int | bytes]:
    """Numbers and lengths of a message: enough for Status."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if key & 7 == 2:
            found[key >> 3] = message[at : at + value]
            at += value
        else:
            found[key >> 3] = value
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextlib.asynccontextmanager
async def started() -> AsyncIterator[Etcd]:
    """Three members of a new cluster."""
    with tempfile.TemporaryDirectory(prefix="etcd-bench-") as directory:
        system = Etcd(Path(directory))
        try:
            for member in range(3):
                system.start(member)
            await system.leader()
            yield system
        finally:
            system.stop()
