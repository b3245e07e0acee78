"""Whether a caller may: the interceptor that holds every call to the server's table, and turns errors into statuses.

A method that the table does not list for the caller is refused. An exception that is no `PyswarmError` is a bug: logged
with its trace here, and "internal error" there.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import grpc

from pyswarm_common import errors
from pyswarm_common.rpc.callers import Caller, Peer, peer_of
from pyswarm_common.rpc.peers import PeerGate
from pyswarm_common.rpc.refusals import RefusalLog
from pyswarm_common.rpc.statuses import abort

Table = Mapping[str, frozenset[Caller]]
"""Full method name ("/pyswarm.v1.Control/ListNodes") to who may call it. What is missing is refused."""


class Admission(Protocol):
    """What a server decides of a caller beyond the table: whether what it came with still holds."""

    async def admit(self, method: str, peer: Peer, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Once per call, before it is answered. Raises the refusal."""
        ...

    def recheck(self, peer: Peer) -> None:
        """Before each message that a person's stream gets. Raises the refusal."""
        ...


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic only in the stubs
    """Holds every call to the table, and turns errors into statuses."""

    def __init__(
        self,
        table: Table,
        cluster_id: Callable[[], str | None] = lambda: None,
        admission: Admission | None = None,
        gate: PeerGate | None = None,
    ) -> None:
        self._table = table
        self._cluster_id = cluster_id
        self._admission = admission
        self._gate = gate
        self._refusals = RefusalLog(time.monotonic)
        self._guarded: dict[str, tuple[object, Any]] = {}  # by method: the handler, and it behind this guard

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        return None if handler is None else self.known(handler, str(handler_call_details.method))

    def known(self, handler: Any, method: str) -> Any:
        """The handler behind this guard, made once."""
        known = self._guarded.get(method)
        if known is None or known[0] is not handler:
            known = self._guarded[method] = (handler, self.guarded(handler, method))
        return known[1]

    async def _admit(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Peer | None:
        """The caller, if it is known and there is something to ask about it."""
        peer = self._check(method, context)
        if peer is not None and self._admission is not None:
            await self._admission.admit(method, peer, context)
        return peer

    def _check(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Peer | None:
        allowed = self._table.get(method)
        if allowed is None:
            raise errors.Forbidden(f"{method} is not open to anybody")
        if Caller.ANYONE in allowed:
            return None
        peer = peer_of(context)
        expected = self._cluster_id()
        if peer.caller is not Caller.LOCAL and expected is not None and peer.cluster_id != expected:
            raise errors.Forbidden("the client certificate belongs to another cluster")
        if peer.caller not in allowed:
            if peer.caller.is_person:
                self._refusals.note(f"{peer.caller.value} {peer.name} ({peer.credential_id})", f"called {method}")
            article = "an" if peer.caller.value[0] in "aeiou" else "a"
            raise errors.Forbidden(f"{article} {peer.caller.value} may not call {method}")
        return peer

    def guarded(self, handler: Any, method: str) -> Any:
        """The handler behind this guard."""
        admit, recheck, entered = self._admit, self._recheck, self._entered
        if handler.response_streaming:
            inner_stream = handler.stream_stream or handler.unary_stream

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                try:
                    peer = await admit(method, context)
                    is_person = peer is not None and peer.caller.is_person
                    with entered(peer, method):
                        async for response in inner_stream(request, context):
                            if is_person:
                                recheck(peer)
                            yield response
                except Exception as error:
                    await abort(context, method, error)

            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else (grpc.unary_stream_rpc_method_handler)
            )
            return make(stream, handler.request_deserializer, handler.response_serializer)

        inner = handler.stream_unary or handler.unary_unary

        async def unary(request: Any, context: Any) -> Any:
            try:
                with entered(await admit(method, context), method):
                    result = inner(request, context)
                    return await result if inspect.isawaitable(result) else result
            except Exception as error:
                await abort(context, method, error)

        make_unary = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else (grpc.unary_unary_rpc_method_handler)
        )
        return make_unary(unary, handler.request_deserializer, handler.response_serializer)

    def _entered(self, peer: Peer | None, method: str) -> AbstractContextManager[None]:
        if peer is None or self._gate is None:
            return contextlib.nullcontext()
        return self._gate.entered(peer, method)

    def _recheck(self, peer: Peer | None) -> None:
        if peer is not None and self._admission is not None:
            self._admission.recheck(peer)
