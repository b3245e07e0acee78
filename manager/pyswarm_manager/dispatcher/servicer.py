"""The Dispatcher service on the wire. Decides nothing: the caller comes from its certificate, the rest from the term.

Session's responses are bytes that the dispatcher serialised, so its handler is registered without the generated one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import Forbidden, InvalidArgument
from pyswarm_common.rpc import Caller, certificate_of, peer_of
from pyswarm_manager.ca.certificates import CertificateSink
from pyswarm_manager.dispatcher.dispatcher import Dispatcher, NotLeading

LEADER_KEY = "pyswarm-leader"
"""Trailing metadata of a refusal: host:port of the leader."""
HELLO_TIMEOUT_S = 10.0

_Context = grpc.aio.ServicerContext[Any, Any]


class DispatcherServicer:
    """Agents' sessions and questions."""

    def __init__(self, dispatcher: Dispatcher, certificates: CertificateSink | None = None) -> None:
        """`certificates` is told what each node's session was opened with."""
        self._dispatcher = dispatcher
        self._certificates = certificates

    def add_to_server(self, server: grpc.aio.Server) -> None:
        """Register the service."""
        handlers = {
            "Session": grpc.stream_stream_rpc_method_handler(
                self.session, request_deserializer=pb.AgentMessage.FromString, response_serializer=None
            ),
            "LocateImage": grpc.unary_unary_rpc_method_handler(
                self.locate_image,
                request_deserializer=pb.LocateImageRequest.FromString,
                response_serializer=pb.LocateImageResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pyswarm.v1.Dispatcher", handlers),))

    async def session(self, requests: AsyncIterator[pb.AgentMessage], context: _Context) -> AsyncIterator[bytes]:
        """One agent's stream."""
        try:
            async for message in self._serve(requests, context):
                yield message
        except NotLeading as refusal:
            await _abort(context, refusal)

    async def locate_image(self, request: pb.LocateImageRequest, context: _Context) -> pb.LocateImageResponse:
        """Where an image is."""
        node_id = _node_of(context)
        try:
            addresses = self._dispatcher.term.locate_image(request.reference, node_id)
        except NotLeading as refusal:
            await _abort(context, refusal)
        return pb.LocateImageResponse(agent_addresses=addresses)

    async def _serve(self, requests: AsyncIterator[pb.AgentMessage], context: _Context) -> AsyncIterator[bytes]:
        node_id = _node_of(context)
        # Read before anything is refused: a stream that ends while its first message is on the way breaks at the agent
        # with an internal error of gRPC's, and who leads, which the refusal says, is lost.
        hello = await _read_hello(requests)
        term = self._dispatcher.term
        session = term.open(node_id, hello)
        if self._certificates is not None:
            self._certificates.seen(node_id, certificate_of(context))
        # The stubs want a class here where any callable will do.
        context.add_done_callback(lambda _: term.close(session))  # type: ignore[arg-type]
        reader: asyncio.Task[None] | None = None
        try:
            yield term.started(session)
            reader = term.start_reading(session, requests)
            async for message in session.messages():
                yield message
        finally:
            term.close(session)
            if reader is not None:
                reader.cancel()


async def _read_hello(requests: AsyncIterator[pb.AgentMessage]) -> pb.Hello:
    message = None
    with contextlib.suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            message = await anext(requests)
    if message is None or message.WhichOneof("message") != "hello":
        raise InvalidArgument("a session begins with a hello")
    return message.hello


def _node_of(context: _Context) -> str:
    peer = peer_of(context)
    if peer.caller not in (Caller.WORKER, Caller.MANAGER):
        raise Forbidden("only nodes have sessions, by their certificates")
    return peer.node_id


async def _abort(context: _Context, refusal: NotLeading) -> None:
    metadata = ((LEADER_KEY, refusal.leader_address),) if refusal.leader_address else ()
    await context.abort(grpc.StatusCode.UNAVAILABLE, str(refusal), metadata)
