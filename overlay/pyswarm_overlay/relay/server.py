"""The relay's listeners and connections, brought to what is wanted.

A port without a target is not listened on, so its clients are refused at once. Everything is bounded: beyond
`MAX_CONNECTIONS` a client is reset, and a backend that does not answer in time is passed over.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from dataclasses import dataclass, field
from functools import partial

from pyswarm_overlay.core.affinity import chosen

from .connection import Side
from .header import header
from .wanted import RelayPort, RelayTarget, Wanted

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 10_000
_CONNECT_TIMEOUT_S = 5.0
_MAX_TRIES = 3
_BACKLOG = 1024
_ANY = ("0.0.0.0", "::")  # noqa: S104  (published to everybody, on request)
Place = tuple[str, int]
"""The address ("" for all) and the port that are listened on."""


@dataclass(slots=True, eq=False)
class _Listener:
    port: RelayPort
    servers: list[asyncio.Server] = field(default_factory=list)
    turn: int = 0
    clients: dict[Side, RelayTarget] = field(default_factory=dict)
    """Every client that was given a backend."""


class Relay:
    """All ports of one host."""

    def __init__(self) -> None:
        self._listeners: dict[Place, _Listener] = {}
        self._sides: set[Side] = set()
        self._arrivals: set[asyncio.Task[None]] = set()
        self._was_full = False
        self._is_finishing = False
        self._is_empty = asyncio.Event()

    @property
    def connections(self) -> int:
        return len(self._sides)

    async def apply(self, wanted: Wanted) -> list[str]:
        """Listen where it is wanted, and end what is not; says which ports it could not have."""
        ports = {(port.host_ip, port.port): port for port in wanted.ports}
        problems: list[str] = []
        for place, listener in list(self._listeners.items()):
            port = ports.get(place, RelayPort(host_ip=place[0], port=place[1]))
            listener.port = port
            if not port.targets:
                _close(listener)
            self._cut(listener)
            if place not in ports and not listener.clients:
                del self._listeners[place]
        for place, port in ports.items():
            listener = self._listeners.setdefault(place, _Listener(port))
            if port.targets and not listener.servers:
                problems += await self._listen(listener)
        return problems

    def _cut(self, listener: _Listener) -> None:
        kept = {*listener.port.targets, *listener.port.lingering}
        for client, target in list(listener.clients.items()):
            if target not in kept:
                client.reset()
                if client.other is not None:
                    client.other.reset()

    async def _listen(self, listener: _Listener) -> list[str]:
        """In both families, or at its one address; a family that this host does not have is left out."""
        port, loop = listener.port, asyncio.get_running_loop()
        try:
            for address in (port.host_ip,) if port.host_ip else _ANY:
                bound = _bind(address, port.port)
                if bound is not None:
                    factory = partial(Side, self._ended, partial(self._arrived, listener))
                    listener.servers.append(await loop.create_server(factory, sock=bound, backlog=_BACKLOG))
        except OSError as error:
            _close(listener)
            return [f"{port.host_ip or 'all addresses'} port {port.port}: {error.strerror}"]
        return []

    async def finish(self) -> None:
        """No new connections; until the last one has ended."""
        for listener in self._listeners.values():
            _close(listener)
        self._is_finishing = True
        if self._sides:
            await self._is_empty.wait()

    # -- a client ----------------------------------------------------------------------------------------------------

    def _arrived(self, listener: _Listener, client: Side) -> None:
        if len(self._sides) >= 2 * MAX_CONNECTIONS:
            if not self._was_full:
                log.warning("%d connections with the PROXY protocol: more are refused", MAX_CONNECTIONS)
            self._was_full = True
            self._sides.add(client)
            client.reset()
            return
        self._was_full = False
        self._sides.add(client)
        arrival = asyncio.create_task(self._hand_on(listener, client))
        self._arrivals.add(arrival)
        arrival.add_done_callback(self._arrivals.discard)

    def _ended(self, side: Side) -> None:
        self._sides.discard(side)
        if self._is_finishing and not self._sides:
            self._is_empty.set()
        for listener in self._listeners.values():
            listener.clients.pop(side, None)

    async def _hand_on(self, listener: _Listener, client: Side) -> None:
        try:
            source, here = client.socket.getpeername()[:2], client.socket.getsockname()[:2]
        except OSError:  # gone already
            client.reset()
            return
        for target in self._order(listener, source[0]):
            backend = await self._connect(target)
            if backend is None:
                continue
            if client.transport is None or target not in listener.port.targets:
                backend.reset()
                break
            assert backend.transport is not None
            listener.clients[client] = target
            backend.transport.write(header(source, here))
            client.tie(backend)
            return
        client.reset()

    def _order(self, listener: _Listener, source: str) -> list[RelayTarget]:
        """Whom to try, one after the other."""
        targets = listener.port.targets
        if not targets:
            return []
        if listener.port.is_sticky:
            owner = chosen(source, (target.owner for target in targets))
            return [target for target in targets if target.owner == owner][:1]
        listener.turn = (listener.turn + 1) % len(targets)
        turned = [*targets[listener.turn :], *targets[: listener.turn]]
        return turned[:_MAX_TRIES]

    async def _connect(self, target: RelayTarget) -> Side | None:
        loop = asyncio.get_running_loop()
        factory = partial(Side, self._ended, self._backend_began)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _transport, side = await loop.create_connection(factory, target.address, target.port)
        except (OSError, TimeoutError):
            return None
        return side

    def _backend_began(self, side: Side) -> None:
        self._sides.add(side)


def _close(listener: _Listener) -> None:
    for server in listener.servers:
        server.close()
    listener.servers.clear()


def _bind(address: str, port: int) -> socket.socket | None:
    """The daemon holds the port with a socket of its own that never listens, so the two share it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        if address == _ANY[1] and error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return bound
