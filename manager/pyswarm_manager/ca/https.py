"""The HTTPS door for machines that have no certificate yet: GetRootCertificate and IssueCertificate.

Speaks the Connect protocol's unary form (POST /pyswarm.v1.CA/<Method>, application/proto, errors as JSON). Anybody can
reach it, so everything is bounded: connections, request size and time, and wrong tokens per address. It never
decides anything about tokens: `ca.issuing` does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiohttp import web
from google.protobuf.message import DecodeError, Message

from pyswarm.v1 import ca_pb2
from pyswarm_common import errors
from pyswarm_common.addresses import plain_address
from pyswarm_common.identity import NodeIdentity
from pyswarm_common.listening import listening_socket
from pyswarm_common.rpc import Caller, Peer
from pyswarm_manager.access.admission import record_of
from pyswarm_manager.access.connect import PeopleDoor
from pyswarm_manager.ca.servicer import CAServicer
from pyswarm_manager.ports import IdentityProvider
from pyswarm_manager.raft.lanes.receiving import PROTOCOL as LANE
from pyswarm_manager.raft.lanes.receiving import Lanes
from pyswarm_manager.store.recording import asking

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
MAX_REQUESTS = 64
REQUEST_TIMEOUT_S = 30.0
BODY_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 256
CONNECTION_TIMEOUT_S = 45.0
WRONG_TOKENS = 10
WRONG_TOKEN_PERIOD_S = 60.0
MAX_ADDRESSES = 4096

ISSUE: Final = "/pyswarm.v1.CA/IssueCertificate"
HTTP_STATUS: Final = {
    "invalid_argument": 400,
    "failed_precondition": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "already_exists": 409,
    "aborted": 409,
    "resource_exhausted": 429,
    "unknown": 500,
    "internal": 500,
    "unimplemented": 501,
    "unavailable": 503,
}
"""Connect's error codes and their HTTP statuses."""


class WrongTokens:
    """Counts wrong tokens by address, so that nobody can guess on. Bounded: what is longest quiet is forgotten."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def require_few(self, address: str) -> None:
        start, count = self._seen.get(address, (0.0, 0))
        if count >= WRONG_TOKENS and self._now() - start < WRONG_TOKEN_PERIOD_S:
            raise errors.Exhausted("too many wrong join tokens from this address: wait a minute, then try again")

    def add(self, address: str) -> None:
        start, count = self._seen.pop(address, (self._now(), 0))
        if self._now() - start >= WRONG_TOKEN_PERIOD_S:
            start, count = self._now(), 0
        self._seen[address] = (start, count + 1)
        while len(self._seen) > MAX_ADDRESSES:
            self._seen.popitem(last=False)


class JoinServer:
    """Serves joining machines. `start` it, `reload` it when the node's certificate was renewed, `close` it."""

    def __init__(
        self,
        ca: CAServicer,
        identity: IdentityProvider,
        people: PeopleDoor | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self._ca = ca
        self._people = people
        self._lanes = lanes
        self._deadlines: dict[object, asyncio.TimerHandle] = {}
        self._identity = identity
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.set_alpn_protocols(["http/1.1"] if lanes is None else ["http/1.1", LANE])
        self._room = asyncio.Semaphore(MAX_REQUESTS)
        self._wrong = WrongTokens(asyncio.get_running_loop().time)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (of use when 0 was asked for). Raises OSError if it is taken."""
        self.reload()
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/pyswarm.v1.CA/GetRootCertificate", self._get_root_certificate)
        app.router.add_post("/pyswarm.v1.CA/IssueCertificate", self._issue_certificate)
        app.router.add_post("/pyswarm.v1.CA/RenewExpired", self._renew_expired)
        app.router.add_post("/{service}/{method}", self._answer_person)
        runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,  # a small body stays one
            keepalive_timeout=5.0,
            handle_signals=False,
            shutdown_timeout=2.0,
        )
        await runner.setup()
        assert runner.server is not None
        self._runner = runner
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                partial(_Arrival, partial(self._protocol_for, runner.server)),
                sock=listening_socket(host, port),
                ssl=self._context,
                ssl_handshake_timeout=BODY_TIMEOUT_S,
            )
        except BaseException:
            await self.close()
            raise
        return int(self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def reload(self) -> None:
        """Use the node's present certificate for new connections."""
        load_certificate(self._context, self._identity())

    async def _get_root_certificate(self, request: web.Request) -> web.Response:
        async def answer() -> Message:
            await _read(request, ca_pb2.GetRootCertificateRequest())
            return self._ca.root_certificate()

        return await self._answered(answer)

    async def _issue_certificate(self, request: web.Request) -> web.Response:
        address = plain_address(request.remote or "")

        async def answer() -> Message:
            self._wrong.require_few(address)
            message, asker = ca_pb2.IssueCertificateRequest(), Peer(Caller.ANYONE, address=address)
            await _read(request, message)
            try:
                with asking(record_of(asker, ISSUE, self._identity().node_id)):
                    return await self._ca.issue(message, asker)
            except errors.Unauthenticated:
                _log.warning("a machine at %s tried to join with a wrong token", address)
                self._wrong.add(address)
                raise

        return await self._answered(answer)

    async def _renew_expired(self, request: web.Request) -> web.Response:
        async def answer() -> Message:
            message = ca_pb2.RenewExpiredRequest()
            await _read(request, message)
            return await self._ca.renew_expired(message)

        return await self._answered(answer)

    async def _answer_person(self, request: web.Request) -> web.StreamResponse:
        """The people's API; whoever has proved to be somebody may stay longer than a joining machine."""
        if self._people is None:
            raise web.HTTPNotFound
        return await self._people.handle(request, partial(self._lift_deadline, request.protocol))

    def _protocol_for(self, server: web.Server, spoken: str | None) -> asyncio.Protocol:
        """Other managers come by lanes, with a ticket; everybody else speaks HTTP."""
        if self._lanes is not None and spoken == LANE:
            return self._lanes.protocol()
        return self._admit(server)

    def _admit(self, server: web.Server) -> asyncio.Protocol:
        """The protocol of a new connection, which lives for one request at most; none when there are too many."""
        if len(server.connections) >= MAX_CONNECTIONS:
            return _TurnedAway()
        connection = server()
        loop = asyncio.get_running_loop()
        self._deadlines[connection] = loop.call_later(CONNECTION_TIMEOUT_S, self._expire, connection)
        return connection

    def _expire(self, connection: web.RequestHandler) -> None:
        del self._deadlines[connection]
        connection.force_close()

    def _lift_deadline(self, connection: object) -> None:
        deadline = self._deadlines.pop(connection, None)
        if deadline is not None:
            deadline.cancel()

    async def _answered(self, answer: Callable[[], Awaitable[Message]]) -> web.Response:
        if self._room.locked():
            return _refusal("resource_exhausted", "too many machines are joining at once: try again in a moment")
        try:
            async with self._room, asyncio.timeout(REQUEST_TIMEOUT_S):
                message = await answer()
        except errors.PyswarmError as error:
            return _refusal(_code(error), str(error), error.node_id if isinstance(error, errors.NodeRemoved) else "")
        except TimeoutError:
            return _refusal("unavailable", "the managers did not decide in time: try again")
        except web.HTTPException:
            raise
        except Exception:
            _log.exception("a joining machine's request failed")
            return _refusal("internal", "internal error: see the log of the manager")
        return web.Response(body=message.SerializeToString(), content_type="application/proto")


class _Arrival(asyncio.Protocol):
    """A connection until its handshake is done, which says what is spoken on it."""

    def __init__(self, protocol_for: Callable[[str | None], asyncio.Protocol]) -> None:
        self._protocol_for = protocol_for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection: ssl.SSLObject = transport.get_extra_info("ssl_object")
        protocol = self._protocol_for(connection.selected_alpn_protocol())
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _TurnedAway(asyncio.Protocol):
    """A connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _read(request: web.Request, into: Message) -> None:
    if request.content_type != "application/proto":
        raise web.HTTPUnsupportedMediaType(text="use Content-Type: application/proto")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            into.ParseFromString(await request.read())
    except DecodeError as error:
        raise errors.InvalidArgument("the body is not the protobuf message of this method") from error


def _code(error: errors.PyswarmError) -> str:
    names = errors.STATUS_NAMES
    meaning = next((base for base in type(error).__mro__ if base in names), None)
    return names[meaning].lower() if meaning is not None else "internal"


def _refusal(code: str, message: str, removed: str = "") -> web.Response:
    body = json.dumps({"code": code, "message": message, **({"removed": removed} if removed else {})})
    return web.Response(text=body, status=HTTP_STATUS[code], content_type="application/json")


def load_certificate(context: ssl.SSLContext, identity: NodeIdentity) -> None:
    """Give OpenSSL the key through a file that exists only in memory: it takes files alone."""
    descriptor = os.memfd_create("node-identity", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(identity.cert_pem + b"\n" + identity.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
