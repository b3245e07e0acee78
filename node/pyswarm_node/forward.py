"""The manager's calls go to it byte for byte: metadata, deadline, cancellation and status as they are.

Decides only whether there is a manager to ask; without one the caller is told why in docker's words. `GetNode("self")`
is the one request that is looked into: the id of this node is known here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from pyswarm.v1 import (
    access_pb2,
    backup_pb2,
    control_pb2,
    exec_pb2,
    health_pb2,
    jobs_pb2,
    logs_pb2,
    network_checks_pb2,
    operator_pb2,
    plans_pb2,
    scheduling_pb2,
    secrets_pb2,
    security_pb2,
    watch_pb2,
)
from pyswarm_common import lost_calls
from pyswarm_common.errors import FailedPrecondition, Unavailable
from pyswarm_common.rpc import Caller, Table

NOT_A_MANAGER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this "
    "command on a manager node or promote the current node to a manager."
)
NOT_IN_A_SWARM = (
    'This node is not a swarm manager. Use "pyswarm init" or "pyswarm join" to connect this node to swarm and try '
    "again."
)
_LOCAL = frozenset({Caller.LOCAL})
_GET_NODE = "/pyswarm.v1.Control/GetNode"
_HOP_METADATA = ("user-agent", "grpc-", "te", "content-type", ":")


@dataclass(frozen=True, slots=True)
class Shape:
    """Which sides of a call are streams."""

    of_requests: bool
    of_answers: bool


def _methods(file: Any) -> dict[str, Shape]:
    """By the full method names of a .proto file's services."""
    return {
        f"/{service.full_name}/{method.name}": Shape(method.client_streaming, method.server_streaming)
        for service in file.services_by_name.values()
        for method in service.methods
    }


_FILES = (
    access_pb2,
    backup_pb2,
    control_pb2,
    exec_pb2,
    jobs_pb2,
    watch_pb2,
    logs_pb2,
    health_pb2,
    network_checks_pb2,
    operator_pb2,
    plans_pb2,
    scheduling_pb2,
    secrets_pb2,
    security_pb2,
)
FORWARDED: dict[str, Shape] = {name: shape for file in _FILES for name, shape in _methods(file.DESCRIPTOR).items()} | {
    "/pyswarm.v1.CA/GetRootCertificate": Shape(of_requests=False, of_answers=False)
}

FORWARD_TABLE: Table = dict.fromkeys(FORWARDED, _LOCAL)


class Forwarder(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic only in the stubs
    """Serves every method in `FORWARDED` by asking the manager."""

    def __init__(self, channel: Callable[[], grpc.aio.Channel], node_id: Callable[[], str]) -> None:
        """`channel` raises the refusal when this node has no manager."""
        self._channel = channel
        self._node_id = node_id

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = str(handler_call_details.method)
        shape = FORWARDED.get(method)
        if shape is None:
            return None

        def unary(request: Any, context: Any) -> Any:
            return self._unary(method, shape, request, context)

        def stream(request: Any, context: Any) -> Any:
            return self._stream(method, shape, request, context)

        make: Any = getattr(grpc, f"{_kind(shape)}_rpc_method_handler")
        return make(stream if shape.of_answers else unary)  # type: ignore[no-any-return]

    async def _unary(self, method: str, shape: Shape, request: Any, context: Any) -> bytes:
        start: Any = getattr(self._channel(), _kind(shape))
        if not shape.of_requests:
            request = self._resolved(method, request)
        call = start(method)(request, timeout=context.time_remaining(), metadata=_metadata(context))
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            raise _explained(error) from error
        context.set_trailing_metadata(tuple(await call.trailing_metadata() or ()))
        return answer

    async def _stream(self, method: str, shape: Shape, request: Any, context: Any) -> AsyncIterator[bytes]:
        start: Any = getattr(self._channel(), _kind(shape))
        call = start(method)(request, timeout=context.time_remaining(), metadata=_metadata(context))
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise _explained(error) from error
        finally:
            call.cancel()  # the caller has gone; nothing happens after the end

    def _resolved(self, method: str, request: bytes) -> bytes:
        if method != _GET_NODE:
            return request
        parsed = control_pb2.GetNodeRequest.FromString(request)
        if parsed.node == "self":
            parsed.node = self._node_id()
        return parsed.SerializeToString()


def _kind(shape: Shape) -> str:
    """As gRPC spells it: "unary_stream"."""
    return f"{'stream' if shape.of_requests else 'unary'}_{'stream' if shape.of_answers else 'unary'}"


def no_manager(is_member: bool) -> FailedPrecondition:
    """Why there is nobody to ask."""
    return FailedPrecondition(NOT_A_MANAGER if is_member else NOT_IN_A_SWARM)


def _explained(error: grpc.aio.AioRpcError) -> Exception:
    """What the manager said goes on as it is. Of one that is gone gRPC has only words about sockets."""
    if lost_calls.is_lost(error):
        return Unavailable(lost_calls.told("the manager on this node"))
    if lost_calls.is_unsent(error):
        return Unavailable("the manager on this node is starting: try again in a moment")
    return error


def _metadata(context: Any) -> tuple[tuple[str, str | bytes], ...]:
    """The caller's own; what belongs to this hop is made anew on the next."""
    pairs = context.invocation_metadata() or ()
    return tuple((key, value) for key, value in pairs if not key.startswith(_HOP_METADATA))
