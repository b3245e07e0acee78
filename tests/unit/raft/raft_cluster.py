"""A few RaftNodes in this process for tests, with ticks of 10 ms, over memory, gRPC, or lanes beside gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from pyswarm.v1 import raft_pb2_grpc
from pyswarm_manager.raft.driver import RaftConfig, RaftNode
from pyswarm_manager.raft.lanes.receiving import Lanes
from pyswarm_manager.raft.lanes.sending import SendingLane, open_lane
from pyswarm_manager.raft.memory_transport import MemoryTransport, Switchboard
from pyswarm_manager.raft.ports import Transport
from pyswarm_manager.raft.servicer import RaftServicer
from pyswarm_manager.raft.storage.memory import MemoryStorage
from pyswarm_manager.raft.storage.port import RaftStorage
from pyswarm_manager.raft.transport import GrpcTransport

CLUSTER_ID = "cluster-a"


class Journal:
    """A state machine that remembers every entry."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.restored = 0

    def apply(self, index: int, term: int, data: bytes) -> object:
        if data == b"broken":
            raise ValueError("this entry cannot be applied")
        self.entries.append(data)
        return len(self.entries)

    def capture(self) -> Callable[[], bytes]:
        entries = list(self.entries)
        return lambda: b"\n".join(entries)

    def restore(self, index: int, data: bytes) -> None:
        self.entries = data.split(b"\n")
        self.restored += 1


class TestMember:
    """A node, what it runs in, and what survives it."""

    __test__ = False

    def __init__(self, raft_id: int) -> None:
        self.raft_id = raft_id
        self.address = f"host{raft_id}:2377"
        self.storage: RaftStorage = MemoryStorage()
        self.journal = Journal()
        self.removed_by_peer = asyncio.Event()
        self._node: RaftNode | None = None
        self.task: asyncio.Task[None] | None = None
        self.server: Any = None
        self.lanes: Lanes | None = None
        self.door: asyncio.Server | None = None

    @property
    def node(self) -> RaftNode:
        assert self._node is not None
        return self._node


class TestCluster:
    """Use as an async context manager: everything that was started is stopped."""

    __test__ = False

    def __init__(self, transport: str = "memory", **options: Any) -> None:
        self.kind = transport
        self.options = {"tick_s": 0.01, "read_timeout_s": 1.0, **options}
        self.board = Switchboard()
        self.members: dict[int, TestMember] = {}

    async def __aenter__(self) -> TestCluster:
        return self

    async def __aexit__(self, *_: object) -> None:
        for raft_id in self.members:
            await self.stop(raft_id)

    async def start(self, raft_id: int, bootstrap: Mapping[int, str] | None = None) -> RaftNode:
        """Start a member, new or again."""
        member = self.members.setdefault(raft_id, TestMember(raft_id))
        member.journal = Journal()
        if self.kind != "memory" and member.server is None:
            await self._listen(member)
        config = RaftConfig(raft_id, member.address, **self.options)
        if bootstrap is not None and not bootstrap:
            bootstrap = {raft_id: member.address}
        member._node = await RaftNode.open(config, member.storage, self._transport(member), member.journal, bootstrap)
        if self.kind != "memory":
            servicer = RaftServicer(member.node, CLUSTER_ID, lanes=member.lanes)
            raft_pb2_grpc.add_RaftServicer_to_server(servicer, member.server)
            await member.server.start()
        else:
            self.board.connect(raft_id, member.node.receive)
        member.task = asyncio.create_task(member.node.run())
        return member.node

    async def _listen(self, member: TestMember) -> None:
        member.server = grpc.aio.server()
        wanted = member.address if member.address.startswith("127.") else "127.0.0.1:0"
        member.address = f"127.0.0.1:{member.server.add_insecure_port(wanted)}"
        if self.kind == "lanes":
            member.lanes = Lanes()
            loop = asyncio.get_running_loop()
            member.door = await loop.create_server(member.lanes.protocol, "127.0.0.1", 0)

    async def _open_lane(self, address: str, ticket: bytes) -> SendingLane:
        """To whoever has that address."""
        doors = [member.door for member in self.members.values() if member.address == address]
        if not doors or doors[0] is None or not doors[0].sockets:
            raise ConnectionRefusedError(address)
        return await open_lane("127.0.0.1", doors[0].sockets[0].getsockname()[1], None, None, ticket)

    def _transport(self, member: TestMember) -> Transport:
        if self.kind == "memory":
            return MemoryTransport(member.raft_id, self.board)
        return GrpcTransport(
            CLUSTER_ID,
            member.raft_id,
            member.address,
            grpc.aio.insecure_channel,
            open_lane=self._open_lane if self.kind == "lanes" else None,
            on_removed=member.removed_by_peer.set,
        )

    async def stop(self, raft_id: int, transfer: bool = False) -> None:
        """Stop a member; its disk stays."""
        member = self.members[raft_id]
        if not transfer:
            self.board.disconnect(raft_id)
        if member.task is not None:
            await member.node.close(transfer=transfer)
            self.board.disconnect(raft_id)
            with contextlib.suppress(Exception):
                await member.task
            member.task = None
        if member.server is not None:
            await member.server.stop(None)
            member.server = None
        if member.door is not None:
            member.door.close()
            member.door = None

    async def grow(self, size: int) -> RaftNode:
        """Member 1 begins, the others join and become voters; returns the leader."""
        first = await self.start(1, {})
        await self.leader()
        for raft_id in range(2, size + 1):
            await self.start(raft_id)
            await first.add_member(raft_id, self.members[raft_id].address)
        nodes = [member.node for member in self.members.values()]
        await self.until(lambda: all(len(node._loop.core.state.voters) == size for node in nodes))
        return first

    async def leader(self) -> RaftNode:
        """Whoever leads, once somebody does."""
        await self.until(lambda: any(m.node.is_leader for m in self.members.values() if m.task is not None))
        return next(m.node for m in self.members.values() if m.task is not None and m.node.is_leader)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it; the test's timeout is the limit."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  any condition on several nodes
                await asyncio.sleep(0.005)

    def journal(self, raft_id: int) -> list[bytes]:
        return self.members[raft_id].journal.entries
