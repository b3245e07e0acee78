"""Forwarding to the manager: what a caller sees is what the manager said, whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pyswarm.v1 import control_pb2, control_pb2_grpc, logs_pb2, logs_pb2_grpc
from pyswarm_common import errors, rpc
from pyswarm_node.forward import FORWARD_TABLE, Forwarder, no_manager


class Manager(control_pb2_grpc.ControlServicer, logs_pb2_grpc.LogsServicer):
    """Answers with what it saw."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def GetNode(self, request: control_pb2.GetNodeRequest, context: Any) -> control_pb2.GetNodeResponse:
        metadata = dict(context.invocation_metadata())
        context.set_trailing_metadata((("saw", metadata.get("mine", "")),))
        response = control_pb2.GetNodeResponse()
        response.node.id = request.node
        response.node.meta.version = int(context.time_remaining())
        return response

    async def ListNodes(self, request: control_pb2.ListNodesRequest, context: Any) -> control_pb2.ListNodesResponse:
        raise errors.InvalidArgument("wrong", [("options.page_size", "is odd")])

    async def GetTask(self, request: control_pb2.GetTaskRequest, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no leader", (("pyswarm-leader", "192.0.2.1:2377"),))

    async def ReadLogs(self, request: logs_pb2.ReadLogsRequest, context: Any) -> AsyncIterator[logs_pb2.LogMessage]:
        yield logs_pb2.LogMessage(data=b"one")
        yield logs_pb2.LogMessage(data=b"two")
        if request.target == "gone":
            raise errors.NotFound("service gone not found")
        if request.follow:
            try:
                await asyncio.sleep(3600)
            finally:
                self.cancelled.set()


@pytest.fixture
async def manager() -> Manager:
    return Manager()


@pytest.fixture
async def channel(tmp_path: Path, manager: Manager) -> AsyncIterator[grpc.aio.Channel]:
    """A client's channel to a daemon that forwards to the manager."""
    inner = grpc.aio.server(interceptors=[rpc.GuardInterceptor(FORWARD_TABLE)])
    control_pb2_grpc.add_ControlServicer_to_server(manager, inner)
    logs_pb2_grpc.add_LogsServicer_to_server(manager, inner)
    inner.add_insecure_port(f"unix:{tmp_path}/manager.sock")
    await inner.start()
    outer = grpc.aio.server(interceptors=[rpc.GuardInterceptor(FORWARD_TABLE)])
    async with (
        rpc.open_local_channel(f"{tmp_path}/manager.sock") as behind,
        rpc.open_local_channel(f"{tmp_path}/pyswarm.sock") as front,
    ):
        outer.add_generic_rpc_handlers((Forwarder(lambda: behind, lambda: "me" * 5),))
        outer.add_insecure_port(f"unix:{tmp_path}/pyswarm.sock")
        await outer.start()
        yield front
        await outer.stop(None)
        await inner.stop(None)


async def test_metadata_deadline_and_self(channel: grpc.aio.Channel) -> None:
    stub = control_pb2_grpc.ControlStub(channel)
    call: Any = stub.GetNode(control_pb2.GetNodeRequest(node="self"), timeout=90, metadata=(("mine", "yes"),))
    response = await call
    assert response.node.id == "me" * 5
    assert 60 < response.node.meta.version <= 90
    assert dict(await call.trailing_metadata())["saw"] == "yes"


async def test_refusals_keep_their_details(channel: grpc.aio.Channel) -> None:
    stub = control_pb2_grpc.ControlStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListNodes(control_pb2.ListNodesRequest())
    error = rpc.error_from_rpc(refused.value)
    assert isinstance(error, errors.InvalidArgument)
    assert error.violations == (("options.page_size", "is odd"),)


async def test_trailing_metadata_of_a_refusal(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await control_pb2_grpc.ControlStub(channel).GetTask(control_pb2.GetTaskRequest())
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNAVAILABLE, "no leader")
    assert dict(refused.value.trailing_metadata())["pyswarm-leader"] == "192.0.2.1:2377"  # type: ignore[call-overload]


async def test_streams_come_through_and_end_as_they_end(channel: grpc.aio.Channel) -> None:
    stub = logs_pb2_grpc.LogsStub(channel)
    assert [m.data async for m in stub.ReadLogs(logs_pb2.ReadLogsRequest())] == [b"one", b"two"]
    call: Any = stub.ReadLogs(logs_pb2.ReadLogsRequest(target="gone"))
    assert [(await call.read()).data for _ in range(2)] == [b"one", b"two"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.details() == "service gone not found"


async def test_a_manager_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    front = grpc.aio.server(interceptors=[rpc.GuardInterceptor(FORWARD_TABLE)])
    async with (
        rpc.open_local_channel(f"{tmp_path}/manager.sock") as behind,
        rpc.open_local_channel(f"{tmp_path}/pyswarm.sock") as channel,
    ):
        front.add_generic_rpc_handlers((Forwarder(lambda: behind, lambda: "me"),))
        front.add_insecure_port(f"unix:{tmp_path}/pyswarm.sock")
        await front.start()
        sentence = "the manager on this node is starting: try again in a moment"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await control_pb2_grpc.ControlStub(channel).GetNode(control_pb2.GetNodeRequest())
        assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNAVAILABLE, sentence)
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await logs_pb2_grpc.LogsStub(channel).ReadLogs(logs_pb2.ReadLogsRequest()).read()
        assert cut.value.details() == sentence
        await front.stop(None)


async def test_a_caller_that_goes_ends_the_call_behind(channel: grpc.aio.Channel, manager: Manager) -> None:
    call: Any = logs_pb2_grpc.LogsStub(channel).ReadLogs(logs_pb2.ReadLogsRequest(follow=True))
    await call.read()
    call.cancel()
    async with asyncio.timeout(10):
        await manager.cancelled.wait()


async def test_what_is_not_the_managers_is_not_forwarded(channel: grpc.aio.Channel) -> None:
    start: Any = channel.unary_unary
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await start("/pyswarm.v1.Raft/Exchange")(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_why_there_is_no_manager() -> None:
    assert "Worker nodes can't be used" in str(no_manager(is_member=True))
    assert 'Use "pyswarm init" or "pyswarm join"' in str(no_manager(is_member=False))
