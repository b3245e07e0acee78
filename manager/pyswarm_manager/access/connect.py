"""The people's API over HTTPS: every method that a person may call, by the Connect protocol, with an API token.

Calls go to the same guarded handlers as gRPC's, in this process, in the name of the caller that the token proved; so
table, admission, forwarding to the leader and audit are the same. Decides only about transport: bounded body, time,
calls at once (of a token, and of all). Never looks into a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
from aiohttp import web
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from pyswarm_common.addresses import plain_address
from pyswarm_common.errors import STATUS_NAMES, Exhausted, InvalidArgument, PyswarmError, Unsupported
from pyswarm_common.rpc import GuardInterceptor, InProcessContext, Peer
from pyswarm_manager.access.connect_protocol import (
    Codec,
    ConnectError,
    codec_of,
    end_of_stream,
    envelope,
    error_of,
    read_request_envelope,
    read_timeout_s,
)
from pyswarm_manager.access.tokens import Bearers
from pyswarm_manager.api.authorisation import TABLE
from pyswarm_manager.store.recording import asking

_log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 2 << 20
BODY_TIMEOUT_S: Final = 20.0
CALL_TIMEOUT_S: Final = 30.0
MAX_CALLS: Final = 128
MAX_CALLS_PER_TOKEN: Final = 32
_GONE_CHECK_S: Final = 1.0

Register = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the people's API."""

    handler: Any
    request_type: type[Message]
    is_stream: bool


class _Refused(grpc.aio.AbortError):
    """`context.abort` was called."""

    def __init__(self, error: ConnectError) -> None:
        super().__init__(error.message)
        self.error = error


class ConnectContext(InProcessContext):
    """What handlers use of gRPC's context."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @property
    def verified_peer(self) -> Peer:
        return self._peer

    def peer(self) -> str:
        return f"https:{self._peer.address}"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Connect's clients of ours read none."""

    def time_remaining(self) -> float | None:
        return None

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> NoReturn:
        raise _Refused(error_of(code, details, trailing_metadata))


class _Collector:
    """Stands in for a server, to learn the handlers of services."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """The same ones again, by another way."""


def people_methods(guard: GuardInterceptor, registrations: Iterable[Register]) -> dict[str, Method]:
    """What a person may call, behind the guard: found by the services' descriptors. Streams of requests are not."""
    collector = _Collector()
    for register in registrations:
        register(collector)
    out = {}
    for name, handler in collector.handlers.items():
        if handler.request_streaming or not any(caller.is_person for caller in TABLE.get(name, ())):
            continue
        service, _, method = name.lstrip("/").partition("/")
        descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
        request_type = message_factory.GetMessageClass(descriptor.input_type)
        out[name] = Method(guard.guarded(handler, name), request_type, handler.response_streaming)
    return out


class PeopleDoor:
    """Answers `POST /<service>/<method>`."""

    def __init__(self, methods: dict[str, Method], bearers: Bearers) -> None:
        self._methods, self._bearers = methods, bearers
        self._calls: Counter[str] = Counter()

    async def handle(self, request: web.Request, on_known: Callable[[], None] = lambda: None) -> web.StreamResponse:
        """The answer; `on_known` is called once the caller has proved to be somebody."""
        codec = codec_of(request.content_type)
        try:
            address = plain_address(request.remote or "")
            peer = await self._bearers.identify(request.headers.get("Authorization", ""), address)
            on_known()
            with self._room(peer.credential_id):
                return await self._answer(request, peer, codec)
        except PyswarmError as error:
            return _refusal(_error(error))
        except _Refused as refused:
            return _refusal(refused.error)
        except TimeoutError:
            return _refusal(ConnectError("deadline_exceeded", "no answer in time: look, then try again"))

    @contextlib.contextmanager
    def _room(self, token_id: str) -> Any:
        if self._calls.total() >= MAX_CALLS:
            raise Exhausted(f"{MAX_CALLS} calls are under way on this manager: ask another one")
        if self._calls[token_id] >= MAX_CALLS_PER_TOKEN:
            raise Exhausted(f"{MAX_CALLS_PER_TOKEN} calls are under way with this token: wait for one to end")
        self._calls[token_id] += 1
        try:
            yield
        finally:
            self._calls[token_id] -= 1
            if not self._calls[token_id]:
                del self._calls[token_id]

    async def _answer(self, request: web.Request, peer: Peer, codec: Codec | None) -> web.StreamResponse:
        method = self._methods.get(request.path)
        if method is None:
            raise Unsupported("there is no such method here: POST /pyswarm.v1.<Service>/<Method>")
        if codec is None or codec.is_stream is not method.is_stream:
            raise InvalidArgument(f"use Content-Type: {' or '.join(_types(method.is_stream))}")
        _check_encoding(request)
        timeout_s = read_timeout_s(request.headers.get("Connect-Timeout-Ms"))
        body = await _read(request)
        context = ConnectContext(peer)
        if not method.is_stream:
            message = codec.decode(method.request_type, body)
            # One task serves all requests of a connection: in whose name this one changes something ends with it.
            with asking(None):
                async with asyncio.timeout(min(timeout_s or CALL_TIMEOUT_S, CALL_TIMEOUT_S)):
                    answer = await method.handler.unary_unary(message, context)
            return web.Response(body=codec.encode(answer), content_type=codec.content_type)
        message = codec.decode(method.request_type, read_request_envelope(body, MAX_BODY_BYTES))
        return await _stream(request, method.handler.unary_stream(message, context), codec, timeout_s)


async def _stream(
    request: web.Request, messages: AsyncGenerator[Message, None], codec: Codec, timeout_s: float | None
) -> web.StreamResponse:
    """Everything the handler yields, then how it ended."""
    response = web.StreamResponse(headers={"Content-Type": codec.content_type, "Cache-Control": "no-store"})
    await response.prepare(request)
    error: ConnectError | None = None
    try:
        async with asyncio.timeout(timeout_s), _pumped(messages) as (queue, pump):
            while (message := await _next(queue, pump, request)) is not None:
                await response.write(envelope(codec.encode(message)))
    except _Refused as refused:
        error = refused.error
    except TimeoutError:
        error = ConnectError("deadline_exceeded", "the time that was asked for is over")
    except ConnectionError:
        return response
    with contextlib.suppress(ConnectionError):
        await response.write(end_of_stream(error))
        await response.write_eof()
    return response


@contextlib.asynccontextmanager
async def _pumped(
    messages: AsyncGenerator[Message, None],
) -> AsyncIterator[tuple[asyncio.Queue[Message], asyncio.Task[None]]]:
    """One task runs the handler from its first message to its last, as gRPC does; it is one message ahead at most."""
    queue: asyncio.Queue[Message] = asyncio.Queue(1)

    async def run() -> None:
        async for message in messages:
            await queue.put(message)

    pump = asyncio.get_running_loop().create_task(run())
    try:
        yield queue, pump
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        await messages.aclose()


async def _next(queue: asyncio.Queue[Message], pump: asyncio.Task[None], request: web.Request) -> Message | None:
    """The next message; None after the last. ConnectionResetError once nobody listens any more."""
    while queue.empty():
        getter = asyncio.ensure_future(queue.get())
        try:
            await asyncio.wait([getter, pump], timeout=_GONE_CHECK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_waiting = getter.cancel()
        if not is_waiting:
            return getter.result()
        if pump.done() and queue.empty():
            pump.result()
            return None
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError
    return queue.get_nowait()


async def _read(request: web.Request) -> bytes:
    body = bytearray()
    async with asyncio.timeout(BODY_TIMEOUT_S):
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise Exhausted(f"the request is larger than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _check_encoding(request: web.Request) -> None:
    for header in ("Content-Encoding", "Connect-Content-Encoding"):
        if request.headers.get(header, "identity") != "identity":
            raise Unsupported(f"compressed requests are not taken: leave {header} out")


def _types(is_stream: bool) -> list[str]:
    return [Codec(is_json, is_stream).content_type for is_json in (False, True)]


def _error(error: PyswarmError) -> ConnectError:
    meaning = next((base for base in type(error).__mro__ if base in STATUS_NAMES), None)
    return ConnectError(STATUS_NAMES[meaning].lower() if meaning is not None else "internal", str(error))


def _refusal(error: ConnectError) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.code == "unauthenticated" else {}
    return web.Response(
        text=json.dumps(error.to_json()),
        status=error.http_status,
        content_type="application/json",
        headers=headers,
    )
