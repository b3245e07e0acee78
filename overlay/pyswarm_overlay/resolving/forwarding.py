"""Names that are not the cluster's: asked of the host's resolvers, or of those that a sandbox was given.

Up to three are asked one after another, four seconds each, as Docker does. One that was silent twice running is taken
for dead for a while: it is asked last and waited for briefly, so that a name which nobody answers for cannot hold up
others, nor a dead server every name. Servers given to a sandbox are asked from its own namespace, those of the host
from the host's.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pyswarm_overlay.core import dns_message as dns
from pyswarm_overlay.kernel import libc
from pyswarm_overlay.kernel.threads import Threads

MAX_UPSTREAMS = 3
TIMEOUT_S = 4.0
DEAD_FOR_S = 10.0
DEAD_TIMEOUT_S = 0.5
_SILENCES = 2
_MAX_KNOWN = 4096
_SIOCGSKNS = 0x894C
_RESOLV_CONF = Path("/etc/resolv.conf")
_OURS = "127.0.0.11"

Server = tuple[str, int]
Open = Callable[[int, int], Awaitable[socket.socket]]
"""Make a socket of this family and type, in the right namespace."""


class Upstreams:
    """Which resolvers to ask: given ones, or the host's, read again when its file changes."""

    def __init__(self, given: tuple[str, ...] | None) -> None:
        self._given = None if given is None else tuple(_server(text) for text in given[:MAX_UPSTREAMS])
        self._read: tuple[int, tuple[Server, ...]] = (-1, ())

    def servers(self) -> tuple[Server, ...]:
        if self._given is not None:
            return self._given
        try:
            stamp = _RESOLV_CONF.stat().st_mtime_ns
            if stamp != self._read[0]:
                self._read = (stamp, from_resolv_conf(_RESOLV_CONF.read_text(errors="replace")))
        except OSError:
            return ()
        return self._read[1]


def _server(text: str) -> Server:
    """An address, or "address#port"."""
    address, _, port = text.partition("#")
    return address, int(port or 53)


def from_resolv_conf(text: str) -> tuple[Server, ...]:
    words = [line.split() for line in text.splitlines()]
    found = [line[1] for line in words if len(line) >= 2 and line[0] == "nameserver" and line[1] != _OURS]
    return tuple((address, 53) for address in found[:MAX_UPSTREAMS])


class Health:
    """Which servers answered of late. `key` tells servers of one namespace from those of another."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._silences: dict[tuple[str, Server], int] = {}
        self._dead_until: dict[tuple[str, Server], float] = {}

    def order(self, key: str, servers: tuple[Server, ...]) -> list[tuple[Server, float]]:
        """Whom to ask, and how long to wait for it: the living ones first."""
        dead = [server for server in servers if self._dead_until.get((key, server), 0.0) > self._now()]
        alive = [server for server in servers if server not in dead]
        return [(server, TIMEOUT_S) for server in alive] + [(server, DEAD_TIMEOUT_S) for server in dead]

    def answered(self, key: str, server: Server) -> None:
        self._silences.pop((key, server), None)
        self._dead_until.pop((key, server), None)

    def was_silent(self, key: str, server: Server) -> None:
        if len(self._silences) > _MAX_KNOWN:
            self._silences.clear()
            self._dead_until.clear()
        count = self._silences[key, server] = self._silences.get((key, server), 0) + 1
        if count >= _SILENCES:
            self._dead_until[key, server] = self._now() + DEAD_FOR_S


class Forwarder:
    """Asks. Who may ask how much at once is the caller's business."""

    def __init__(self, health: Health | None = None) -> None:
        self._health = health or Health()
        self._threads = Threads()

    async def ask(
        self, query: dns.Query, packet: bytes, servers: tuple[Server, ...], inside: socket.socket | None, *, tcp: bool
    ) -> bytes:
        """The answer, or SERVFAIL. `inside`: a socket of the namespace to ask from; None: our own."""
        key = "" if inside is None else str(os.fstat(inside.fileno()).st_ino)
        make = _open_here if inside is None else partial(self._open_inside, inside)
        exchange = _ask_tcp if tcp else _ask_udp
        for server, patience_s in self._health.order(key, servers):
            try:
                async with asyncio.timeout(patience_s):
                    answer = await exchange(make, server, packet, query.question)
            except TimeoutError:
                self._health.was_silent(key, server)
            except (OSError, asyncio.IncompleteReadError):
                continue  # it said no, which takes no time
            else:
                self._health.answered(key, server)
                return dns.with_id(answer, query.id)
        return dns.reply(query, dns.SERVFAIL)

    async def _open_inside(self, inside: socket.socket, family: int, kind: int) -> socket.socket:
        return await self._threads.run(partial(_open_at, inside, family, kind))


async def _open_here(family: int, kind: int) -> socket.socket:
    return _open(family, kind)


def _open_at(inside: socket.socket, family: int, kind: int) -> socket.socket:
    """In a thread that ends with it."""
    namespace = int(fcntl.ioctl(inside, _SIOCGSKNS))
    try:
        libc.setns(namespace)
    finally:
        os.close(namespace)
    return _open(family, kind)


def _open(family: int, kind: int) -> socket.socket:
    return socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)


class _UdpAnswer(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers our query; others, forged or late, are passed over."""

    def __init__(self, ident: int, question: bytes) -> None:
        self._ident = ident
        self._question = question
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | int, int]) -> None:
        if not self.answer.done() and dns.answers(data, self._ident, self._question):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_udp(make: Open, server: Server, packet: bytes, question: bytes) -> bytes:
    """From a port of its own and under a random id, so that an answer is hard to forge."""
    ident = secrets.randbits(16)
    sock = await make(_family(server), socket.SOCK_DGRAM)
    transport = None
    try:
        sock.connect(server)
        transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _UdpAnswer(ident, question), sock=sock
        )
        transport.sendto(dns.with_id(packet, ident))
        return await protocol.answer
    finally:
        if transport is None:
            sock.close()
        else:
            transport.close()


async def _ask_tcp(make: Open, server: Server, packet: bytes, question: bytes) -> bytes:
    ident = secrets.randbits(16)
    sock = await make(_family(server), socket.SOCK_STREAM)
    try:
        await asyncio.get_running_loop().sock_connect(sock, server)
        reader, writer = await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(len(packet).to_bytes(2, "big") + dns.with_id(packet, ident))
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        if not dns.answers(answer, ident, question):
            raise OSError("not the answer to our question")
        return answer
    finally:
        with suppress(OSError):
            writer.close()


def _family(server: Server) -> int:
    return socket.AF_INET6 if ":" in server[0] else socket.AF_INET
