"""The edge of every server: real gRPC over mTLS on loopback, a table of methods, and errors that keep their meaning."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from pyswarm.v1 import control_pb2, control_pb2_grpc, health_pb2, health_pb2_grpc
from pyswarm_common import errors, rpc
from pyswarm_common.identity import NodeIdentity, RootAuthority, generate_key, key_to_pem, make_csr
from pyswarm_common.model import NodeRole

CLUSTER = "c" * 25
CONTROL = "/pyswarm.v1.Control/"
TABLE = {
    CONTROL + "GetNode": frozenset({rpc.Caller.MANAGER}),
    CONTROL + "ListNodes": frozenset({rpc.Caller.MANAGER, rpc.Caller.WORKER}),
}


def identity(root: RootAuthority, role: NodeRole, cluster_id: str = CLUSTER) -> NodeIdentity:
    key = generate_key()
    cert = root.issue(
        make_csr(key), node_id="n" * 25, cluster_id=cluster_id, role=role, now=time.time(), lifetime_s=3600
    )
    return NodeIdentity(cert, key_to_pem(key), root.cert_pem)


class Control(control_pb2_grpc.ControlServicer):
    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def GetNode(self, request: control_pb2.GetNodeRequest, context: Any) -> control_pb2.GetNodeResponse:
        if request.node == "bug":
            raise RuntimeError("secret detail")
        if request.node == "too late":
            self.asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        if request.node == "bad":
            raise errors.InvalidArgument("wrong", [("node", "is bad"), ("consistency", "is odd")])
        raise errors.NotFound(f"node {request.node} not found")

    async def ListNodes(self, request: control_pb2.ListNodesRequest, context: Any) -> control_pb2.ListNodesResponse:
        peer = rpc.peer_of(context)
        return control_pb2.ListNodesResponse(next_page_token=f"{peer.caller.value} {peer.node_id}")


@pytest.fixture
def root() -> RootAuthority:
    return RootAuthority.create(CLUSTER, time.time())


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
async def address(root: RootAuthority, control: Control) -> AsyncIterator[str]:
    guard = rpc.GuardInterceptor(TABLE, lambda: CLUSTER)
    server = grpc.aio.server(interceptors=[guard], options=rpc.SERVER_OPTIONS)
    control_pb2_grpc.add_ControlServicer_to_server(control, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_pb2_grpc.HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", identity(root, NodeRole.MANAGER).server_credentials())
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def call(address: str, who: NodeIdentity, method: str = "GetNode", server: str = "swarm-manager") -> Any:
    async with rpc.open_channel(address, who, server) as channel:
        try:
            if method == "Health":
                return await health_pb2_grpc.HealthStub(channel).GetHealth(health_pb2.GetHealthRequest())
            if method == "ListNodes":
                return await control_pb2_grpc.ControlStub(channel).ListNodes(control_pb2.ListNodesRequest())
            return await control_pb2_grpc.ControlStub(channel).GetNode(control_pb2.GetNodeRequest(node=method))
        except grpc.aio.AioRpcError as error:
            raise rpc.error_from_rpc(error) from None


async def test_the_server_sees_who_calls(address: str, root: RootAuthority) -> None:
    response = await call(address, identity(root, NodeRole.WORKER), "ListNodes")
    assert response.next_page_token == "worker " + "n" * 25


async def test_a_refusal_keeps_its_meaning(address: str, root: RootAuthority) -> None:
    with pytest.raises(errors.NotFound, match="node x1 not found"):
        await call(address, identity(root, NodeRole.MANAGER), "x1")


async def test_all_field_violations_arrive(address: str, root: RootAuthority) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await call(address, identity(root, NodeRole.MANAGER), "bad")
    assert caught.value.violations == (("node", "is bad"), ("consistency", "is odd"))


async def test_a_bug_tells_the_caller_nothing(address: str, root: RootAuthority) -> None:
    with pytest.raises(errors.PyswarmError, match="internal error") as caught:
        await call(address, identity(root, NodeRole.MANAGER), "bug")
    assert "secret" not in str(caught.value)


async def test_a_refusal_that_nobody_waits_for_any_more_is_no_error(
    address: str, root: RootAuthority, control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    calling = asyncio.create_task(call(address, identity(root, NodeRole.MANAGER), "too late"))
    await control.asked.wait()
    calling.cancel()
    async with asyncio.timeout(30):
        while not any("the caller is gone" in record.getMessage() for record in caplog.records):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_worker_may_not_call_a_managers_method(address: str, root: RootAuthority) -> None:
    with pytest.raises(errors.Forbidden, match="a worker may not call"):
        await call(address, identity(root, NodeRole.WORKER), "x1")


async def test_a_method_missing_in_the_table_is_refused(address: str, root: RootAuthority) -> None:
    with pytest.raises(errors.Forbidden, match="not open to anybody"):
        await call(address, identity(root, NodeRole.MANAGER), "Health")


async def test_a_certificate_of_another_cluster_id_is_refused(address: str, root: RootAuthority) -> None:
    with pytest.raises(errors.Forbidden, match="another cluster"):
        await call(address, identity(root, NodeRole.MANAGER, "d" * 25), "x1")


async def test_a_certificate_of_another_root_gets_no_connection(address: str) -> None:
    stranger = RootAuthority.create(CLUSTER, time.time())
    with pytest.raises(errors.Unavailable):
        await call(address, identity(stranger, NodeRole.MANAGER), "x1")


async def test_the_servers_role_is_verified(address: str, root: RootAuthority) -> None:
    with pytest.raises(errors.Unavailable):
        await call(address, identity(root, NodeRole.MANAGER), "x1", server="swarm-worker")
