"""An agent's session with a manager over the simulated network: gRPC's stream-stream call, in memory.

Both ends are the product's: the agent's session writes and reads protobuf messages through `SimCall`, and the manager's
servicer gets an iterator and a context. In between are bytes, in order, late or held up; a connection breaks when an
end dies, and when keepalive finds the other end silent. Statuses and metadata are gRPC's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc

from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import STATUS_NAMES, PyswarmError
from pyswarm_simulator.mailbox import Mailbox
from pyswarm_simulator.network import Network, Pipe, host_at
from pyswarm_simulator.switchboard import Endpoint, Party, Switchboard
from pyswarm_simulator.world import ProcessLoop

CLIENT_KEEPALIVE_S = 2.5
SERVER_KEEPALIVE_S = 8.0
_POLL_S = 0.5
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs


class _Aborted(Exception):
    """The servicer ended the call with a status."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: Sequence[tuple[str, str]]) -> None:
        super().__init__(details)
        self.code, self.details, self.metadata = code, details, tuple(metadata)


def rpc_error(code: grpc.StatusCode, details: str, metadata: Sequence[tuple[str, str]] = ()) -> grpc.aio.AioRpcError:
    """What a gRPC client raises."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=details)  # type: ignore[call-arg]  # the stubs want its last argument, which has a default


class SimContext:
    """As much of a servicer's context as the dispatcher uses."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate
        self.done_callbacks: list[Callable[[Any], object]] = []

    def peer(self) -> str:
        return "ipv4:simulated"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self.done_callbacks.append(callback)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[tuple[str, str]] = ()
    ) -> NoReturn:
        raise _Aborted(code, details, trailing_metadata)


class SimCall:
    """One stream. The methods without underscore are what the agent's session calls."""

    def __init__(self, network: Network, board: Switchboard, client: Party, address: str, certificate: bytes) -> None:
        self._network, self._board, self._client, self._address = network, board, client, address
        self._server: Endpoint | None = None
        self._inbox: Mailbox[Any] = Mailbox(client.loop)
        self._requests: Mailbox[pb.AgentMessage] | None = None
        self._context = SimContext(certificate)
        self._handler: asyncio.Task[None] | None = None
        self._is_over = [False, False]  # for the client, for the server
        target = host_at(address)
        self._up = Pipe(network, client.host, target)
        self._down = Pipe(network, target, client.host)
        self._target = target
        self._up.send(self._accept)
        self._poll()

    # -- the client's side ---------------------------------------------------------------------------------------------

    async def write(self, message: pb.AgentMessage) -> None:
        data = message.SerializeToString()
        self._up.send(lambda: self._request(data))

    async def read(self) -> Any:
        return await self._inbox.get()

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def cancel(self) -> None:
        if not self._is_over[0]:
            self._is_over[0] = True
            self._up.send(self._end_server)

    def _fail(self, error: BaseException) -> None:
        """The client hears how it ended."""
        if not self._is_over[0]:
            self._is_over[0] = True
            self._up.end()
            self._inbox.put(error)

    # -- the server's side ---------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        server = self._board.find(self._address)
        if server is None or server.session is None:
            self._down.send(lambda: self._fail(rpc_error(grpc.StatusCode.UNAVAILABLE, "connection refused")))
            return
        self._server = server
        self._requests = Mailbox(server.loop)
        self._handler = server.loop.spawn(self._serve(server.session, self._requests))
        self._handler.add_done_callback(lambda _: self._run_done_callbacks())

    def _request(self, data: bytes) -> None:
        if self._requests is not None and not self._is_over[1]:
            self._requests.put(pb.AgentMessage.FromString(data))

    async def _serve(self, session: Callable[..., AsyncIterator[bytes]], requests: Mailbox[pb.AgentMessage]) -> None:
        try:
            async for data in session(_iterate(requests), self._context):
                self._answer(data)
            self._down.send(lambda: self._inbox.put(_EOF))
        except _Aborted as aborted:
            self._refuse(aborted.code, aborted.details, aborted.metadata)
        except PyswarmError as error:
            self._refuse(_code_of(error), str(error), error.trailing)

    def _answer(self, data: bytes) -> None:
        self._down.send(lambda: None if self._is_over[0] else self._inbox.put(pb.ManagerMessage.FromString(data)))

    def _refuse(self, code: grpc.StatusCode, details: str, metadata: Sequence[tuple[str, str]]) -> None:
        self._is_over[1] = True
        self._down.send(lambda: self._fail(rpc_error(code, details, metadata)))

    def _end_server(self) -> None:
        """The client is gone, as far as the server can tell: its handler is cancelled, as gRPC does."""
        if self._is_over[1]:
            return
        self._is_over[1] = True
        self._down.end()
        if self._handler is not None and self._server is not None and self._server.loop.is_alive:
            self._handler.cancel()

    def _run_done_callbacks(self) -> None:
        self._is_over[1] = True
        for callback in self._context.done_callbacks:
            callback(None)

    # -- keepalive -----------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Now and then: has either end fallen silent for too long, or died so that everybody noticed?"""
        if all(self._is_over):
            return
        link_s = self._network.silent_s(self._client.host, self._target)
        server_loop = self._server.loop if self._server is not None else None
        if max(link_s, _silent_s(server_loop)) > CLIENT_KEEPALIVE_S or _was_reset(server_loop, link_s):
            self._fail(rpc_error(grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout"))
        if max(link_s, _silent_s(self._client.loop)) > SERVER_KEEPALIVE_S or _was_reset(self._client.loop, link_s):
            self._end_server()
        self._network.world.after_s(_POLL_S, self._poll)


def _silent_s(loop: ProcessLoop | None) -> float:
    return 0.0 if loop is None or loop.silent_since is None else loop.world.now - loop.silent_since


def _was_reset(loop: ProcessLoop | None, link_s: float) -> bool:
    """A process that was killed has its connections reset by its kernel, if that still runs and is heard."""
    return loop is not None and not loop.is_alive and loop.resets_connections and link_s == 0


def _code_of(error: PyswarmError) -> grpc.StatusCode:
    return grpc.StatusCode[next(STATUS_NAMES[base] for base in type(error).__mro__ if base in STATUS_NAMES)]


async def _iterate(requests: Mailbox[pb.AgentMessage]) -> AsyncIterator[pb.AgentMessage]:
    while True:
        yield await requests.get()


class SimStub:
    """The dispatcher's stub, as the agent's session uses it."""

    def __init__(self, network: Network, board: Switchboard, client: Party, address: str, certificate: bytes) -> None:
        self._network, self._board, self._client, self._address = network, board, client, address
        self._certificate = certificate

    def Session(self) -> SimCall:  # noqa: N802 - named by the protocol
        return SimCall(self._network, self._board, self._client, self._address, self._certificate)

    async def LocateImage(self, request: pb.LocateImageRequest, timeout: float) -> Any:  # noqa: N802
        try:
            data = await self._board.call(
                self._client, self._address, "LocateImage", request.SerializeToString(), timeout
            )
        except PyswarmError as error:
            raise rpc_error(_code_of(error), str(error)) from error
        return pb.LocateImageResponse.FromString(data)


def dialler(network: Network, board: Switchboard, client: Party, certificate: Callable[[], bytes]) -> Any:
    """How an agent connects to a manager."""

    @asynccontextmanager
    async def dial(address: str) -> AsyncIterator[SimStub]:
        yield SimStub(network, board, client, address, certificate())

    return dial
