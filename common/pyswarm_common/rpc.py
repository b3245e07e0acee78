"""gRPC at the edge: who calls, whether they may, and how errors travel.

One server interceptor does both sides of that: it refuses a method that the server's table does not list for the
caller, and turns `PyswarmError` into a status with `google.rpc` details. On the client side `error_from_rpc` turns the
status back. An exception that is not a `PyswarmError` is a bug: logged with its trace here, and "internal error" there.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from pyswarm_common import errors
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.identity.people import read_person
from pyswarm_common.model import NodeRole
from pyswarm_common.model.states import PersonRole
from pyswarm_common.peers import PeerGate
from pyswarm_common.refusals import RefusalLog

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 16 << 20

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # What bounds the wait for a ping's answer in current gRPC: its default of a minute hides a peer that stands still.
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name, how long one attempt to connect may take at least, the TLS handshake included: on a busy
    # machine a handshake takes longer than any good pause between attempts.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Each node talks to its peers by their own addresses: a proxy from the environment is never meant.
    ("grpc.enable_http_proxy", 0),
)
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    # A second server on a taken port must fail, not share it.
    ("grpc.so_reuseport", 0),
)
TLS_SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *SERVER_OPTIONS,
    # Of one connection: a client waits by itself until one of its streams ends (a manager's forwarder has one).
    ("grpc.max_concurrent_streams", 2_048),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A node has two or three; who comes when all are taken is hung up on, and tries again.
    ("grpc.max_allowed_incoming_connections", 20_000),
    ("grpc.max_metadata_size", 16 * 1024),
)
"""For servers that others reach over the network: `SERVER_OPTIONS`, bounded."""


class Caller(Enum):
    """What a caller is, as far as a table of methods cares."""

    WORKER = "worker"
    MANAGER = "manager"
    LOCAL = "local"  # through the local unix socket: root on this machine
    ANYONE = "anyone"  # no certificate asked for
    VIEWER = "viewer"  # people, by role
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def is_person(self) -> bool:
        """Somebody with an API token or a client certificate of their own."""
        return self in _PEOPLE


_PEOPLE = frozenset({Caller.VIEWER, Caller.OPERATOR, Caller.ADMIN})
_CALLER_OF_PERSON = {
    PersonRole.VIEWER: Caller.VIEWER,
    PersonRole.OPERATOR: Caller.OPERATOR,
    PersonRole.ADMIN: Caller.ADMIN,
}


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls. A person has a name and a credential instead of a node id."""

    caller: Caller
    node_id: str = ""
    cluster_id: str = ""
    name: str = ""
    credential_id: str = ""
    fingerprint: str = ""
    """Of the certificate's key; empty for whoever came with a token."""
    expires_at: float = 0.0
    """When the person's certificate ends; a connection may outlive it."""
    address: str = ""
    """Where the call came from; empty: through this machine's socket."""


def caller_of_person(role: PersonRole) -> Caller:
    return _CALLER_OF_PERSON[role]


class InProcessContext(abc.ABC):
    """A call that this process makes on behalf of a caller it has verified itself. Nobody else can make one."""

    @property
    @abc.abstractmethod
    def verified_peer(self) -> Peer: ...


LOCAL_PEER = Peer(Caller.LOCAL)
_CALLERS = {NodeRole.MANAGER: Caller.MANAGER, NodeRole.WORKER: Caller.WORKER}


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """The caller by its client certificate; a unix socket's caller is local. Raises Unauthenticated."""
    if isinstance(context, InProcessContext):
        return context.verified_peer
    if context.peer().startswith("unix:"):
        return LOCAL_PEER
    certificates = tuple(context.auth_context().get("x509_pem_cert", ()))
    if not certificates:
        raise errors.Unauthenticated("a node certificate is needed: join the cluster first")
    return _peer_of_certificate(certificates[0])


def certificate_of(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """The caller's certificate (PEM), which TLS has verified; empty for whoever came without one."""
    if isinstance(context, InProcessContext):
        return b""
    return bytes(next(iter(context.auth_context().get("x509_pem_cert", ())), b""))


@functools.lru_cache(maxsize=4096)
def _peer_of_certificate(pem: bytes) -> Peer:
    person = read_person(pem)
    if person is not None:
        return Peer(
            _CALLER_OF_PERSON[person.role],
            cluster_id=person.cluster_id,
            name=person.name,
            credential_id=person.credential_id,
            fingerprint=person.fingerprint,
            expires_at=person.expires_at,
        )
    identity = NodeIdentity(cert_pem=pem, key_pem=b"", root_cert_pem=b"")
    return Peer(_CALLERS[identity.role], identity.node_id, identity.cluster_id)


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
        if handler is None:
            return None
        method = str(handler_call_details.method)
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
                    await _abort(context, method, error)

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
                await _abort(context, method, error)

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


async def _abort(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> None:
    """End the call with the error's status. A caller that is gone cannot get one, which is nobody's failure."""
    try:
        if isinstance(error, grpc.aio.InternalError):  # the handler aborted by itself, and nobody was there
            raise error
        await _answer(context, method, error)
    except grpc.aio.InternalError as gone:
        _log.debug("%s: the caller is gone", method)
        raise asyncio.CancelledError from gone  # what gRPC itself makes of a call that nobody waits for


async def _answer(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, grpc.aio.AioRpcError):  # forwarded: the far side's status is the answer
        await context.abort(error.code(), error.details() or "", _metadata(error))
    if not isinstance(error, errors.PyswarmError):
        _log.error("%s failed", method, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error: see the log of the daemon")
    assert isinstance(error, errors.PyswarmError)
    status = rpc_status.to_status(_status_message(error))
    await context.abort(status.code, status.details, (*(status.trailing_metadata or ()), *error.trailing))


def _status_message(error: errors.PyswarmError) -> status_pb2.Status:
    code = grpc.StatusCode[errors.STATUS_NAMES[_meaning(type(error))]]
    message = status_pb2.Status(code=code.value[0], message=str(error))
    if isinstance(error, errors.InvalidArgument) and error.violations:
        detail = error_details_pb2.BadRequest()
        for field, description in error.violations:
            detail.field_violations.add(field=field, description=description)
        packed = AnyMessage()
        packed.Pack(detail)
        message.details.append(packed)
    return message


def _meaning(error_type: type) -> type[errors.PyswarmError]:
    return next(base for base in error_type.__mro__ if base in errors.STATUS_NAMES)


_BY_CODE = {grpc.StatusCode[name]: meaning for meaning, name in errors.STATUS_NAMES.items()}


def error_from_rpc(error: grpc.aio.AioRpcError) -> errors.PyswarmError:
    """The refusal that the server raised; Unavailable when nobody answered."""
    code, details = error.code(), error.details() or "no answer"
    meaning = errors.Unavailable if code is grpc.StatusCode.DEADLINE_EXCEEDED else _BY_CODE.get(code)
    if meaning is errors.InvalidArgument:
        return errors.InvalidArgument(details, _violations(error))
    return (meaning or errors.PyswarmError)(details)


def _metadata(error: grpc.aio.AioRpcError) -> tuple[tuple[str, str | bytes], ...]:
    pairs: Any = error.trailing_metadata() or ()  # iterates as pairs, which the stubs do not know
    return tuple((key, value) for key, value in pairs)


def _violations(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    status = status_pb2.Status()
    for key, value in _metadata(error):
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status.ParseFromString(value)
    out = []
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            out += [(violation.field, violation.description) for violation in request.field_violations]
    return out


def open_channel(address: str, identity: NodeIdentity, server_name: str) -> grpc.aio.Channel:
    """A channel by mTLS to a server whose certificate must carry `server_name` (a role, not a host name)."""
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(address, identity.channel_credentials(), options=options)


def open_local_channel(socket_path: str) -> grpc.aio.Channel:
    """A channel to a daemon's unix socket."""
    return grpc.aio.insecure_channel(f"unix:{socket_path}", options=CHANNEL_OPTIONS)
