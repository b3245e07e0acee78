"""The gate of a server: limits of one peer do not touch another, and a removed node's calls end at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from test_rpc import CLUSTER, identity

from pyswarm.v1 import control_pb2, control_pb2_grpc, watch_pb2, watch_pb2_grpc
from pyswarm_common import errors, rpc
from pyswarm_common.identity import RootAuthority
from pyswarm_common.model import NodeRole
from pyswarm_common.rpc.peers import MAX_PEERS, Limit, PeerGate

WORKER, OTHER = rpc.Peer(rpc.Caller.WORKER, "a" * 25), rpc.Peer(rpc.Caller.WORKER, "b" * 25)
TABLE = dict.fromkeys(
    ("/pyswarm.v1.Control/ListNodes", "/pyswarm.v1.Control/GetNode", "/pyswarm.v1.Watch/Watch"),
    frozenset({rpc.Caller.MANAGER, rpc.Caller.WORKER}),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def gate(
    clock: Callable[[], float],
    refusal: Callable[[rpc.Peer], errors.PyswarmError | None] = lambda peer: None,
    **limit: Any,
) -> PeerGate:
    fields = {"concurrent": 2, "per_second": 1.0, "burst": 3.0, **limit}
    return PeerGate({rpc.Caller.WORKER: Limit(**fields)}, refusal, clock)


async def test_calls_at_once_are_counted_by_certificate() -> None:
    door = gate(Clock())
    with door.entered(WORKER, "m"), door.entered(WORKER, "m"):
        with (
            pytest.raises(errors.Exhausted, match="2 calls of this certificate are under way"),
            door.entered(WORKER, "m"),
        ):
            raise AssertionError("let in")
        with door.entered(OTHER, "m"):
            pass
    with door.entered(WORKER, "m"):
        pass


async def test_calls_over_time() -> None:
    clock = Clock()
    door = gate(clock)

    def once() -> None:
        with door.entered(WORKER, "m"):
            pass

    for _ in range(3):
        once()
    with pytest.raises(errors.Exhausted, match="more than 1 calls a second"):
        once()
    clock.now += 1.0
    once()
    with pytest.raises(errors.Exhausted):
        once()
    clock.now += 1e6  # no more than the burst is saved up
    for _ in range(3):
        once()
    with pytest.raises(errors.Exhausted):
        once()


async def test_the_local_socket_has_no_limit() -> None:
    door = gate(Clock())
    for _ in range(50):
        with door.entered(rpc.LOCAL_PEER, "m"):
            pass


async def test_what_is_remembered_is_bounded() -> None:
    door = gate(Clock())
    with door.entered(WORKER, "m"):
        for number in range(MAX_PEERS + 10):
            with door.entered(rpc.Peer(rpc.Caller.WORKER, f"{number:025}"), "m"):
                pass
        assert len(door._peers) <= MAX_PEERS + 1
        assert (WORKER.caller, WORKER.node_id) in door._peers


class Streams(watch_pb2_grpc.WatchServicer, control_pb2_grpc.ControlServicer):
    """A stream without an end in each direction that gRPC knows, and a question that is never answered."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[watch_pb2.WatchResponse]:
        yield watch_pb2.WatchResponse(version=1)
        self.entered.set()
        await asyncio.Event().wait()

    async def GetNode(self, request: Any, context: Any) -> control_pb2.GetNodeResponse:
        self.entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def ListNodes(self, request: Any, context: Any) -> control_pb2.ListNodesResponse:
        return control_pb2.ListNodesResponse()


async def test_a_removed_node_is_cut_off_and_refused() -> None:
    removed: set[str] = set()
    root, node_id = RootAuthority.create(CLUSTER, time.time()), "n" * 25
    door = gate(time.monotonic, lambda p: errors.NodeRemoved(p.node_id) if p.node_id in removed else None, burst=100.0)
    server = grpc.aio.server(interceptors=[rpc.GuardInterceptor(TABLE, gate=door)], options=rpc.TLS_SERVER_OPTIONS)
    streams = Streams()
    watch_pb2_grpc.add_WatchServicer_to_server(streams, server)
    control_pb2_grpc.add_ControlServicer_to_server(streams, server)
    port = server.add_secure_port("127.0.0.1:0", identity(root, NodeRole.MANAGER).server_credentials())
    await server.start()
    try:
        async with rpc.open_channel(f"127.0.0.1:{port}", identity(root, NodeRole.WORKER), "swarm-manager") as channel:
            call: Any = watch_pb2_grpc.WatchStub(channel).Watch(watch_pb2.WatchRequest())
            assert (await call.read()).version == 1
            stub: Any = control_pb2_grpc.ControlStub(channel)
            await streams.entered.wait()
            streams.entered.clear()
            question = asyncio.ensure_future(stub.GetNode(control_pb2.GetNodeRequest()))
            await streams.entered.wait()
            removed.add(node_id)
            door.cut(node_id, errors.NodeRemoved(node_id))
            for ended in (call.read(), question, stub.ListNodes(control_pb2.ListNodesRequest())):
                with pytest.raises(grpc.aio.AioRpcError, match="was removed from the swarm") as refused:
                    await ended
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
                keys = {key for key, _ in refused.value.trailing_metadata() or ()}
                assert errors.NODE_REMOVED_KEY in keys
    finally:
        await server.stop(None)


async def test_connections_are_bounded() -> None:
    """gRPC takes the option by its name, and would say nothing if it did not know it."""
    names = dict(rpc.TLS_SERVER_OPTIONS)
    assert names["grpc.max_allowed_incoming_connections"] == 20_000
    server = grpc.aio.server(options=(("grpc.max_allowed_incoming_connections", 3),))
    root = RootAuthority.create(CLUSTER, time.time())
    port = server.add_secure_port("127.0.0.1:0", identity(root, NodeRole.MANAGER).server_credentials())
    await server.start()
    writers = []
    try:
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""  # hung up on
    finally:
        for writer in writers:
            writer.close()
        await server.stop(None)
