"""The DNS server of all sandboxes on this host: one event loop, two sockets per sandbox.

Answers come from `core.dns_answer`; this only moves bytes. Bounded: so many forwarded queries at once per sandbox and
in all (beyond it SERVFAIL at once), so many TCP connections (beyond it closed), so many seconds for an upstream.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .core import dns_answer
from .core import dns_message as dns

MAX_FORWARDS = 1024
MAX_FORWARDS_PER_SANDBOX = 128
MAX_TCP = 512
MAX_TCP_PER_SANDBOX = 32
TCP_IDLE_S = 10.0
UPSTREAM_TIMEOUT_S = 2.0
MAX_UPSTREAMS = 3
_DATAGRAMS_PER_WAKE = 32
_RESOLV_CONF = Path("/etc/resolv.conf")
_OURS = "127.0.0.11"

View = Callable[[], dns_answer.View]


class Upstreams:
    """The resolvers to forward to: configured, or the host's, read again when its file changes."""

    def __init__(self, configured: tuple[str, ...] | None) -> None:
        self._configured = configured
        self._read: tuple[int, tuple[tuple[str, int], ...]] = (-1, ())

    def addresses(self) -> tuple[tuple[str, int], ...]:
        if self._configured is not None:
            return tuple(_host_port(text) for text in self._configured[:MAX_UPSTREAMS])
        try:
            stamp = _RESOLV_CONF.stat().st_mtime_ns
        except OSError:
            return ()
        if stamp != self._read[0]:
            self._read = (stamp, _from_resolv_conf(_RESOLV_CONF.read_text(errors="replace")))
        return self._read[1]


@dataclass(slots=True, eq=False)
class _Client:
    """One sandbox's sockets and what it has under way."""

    udp: socket.socket
    tcp: socket.socket
    view: View
    upstreams: Upstreams
    forwards: int = 0
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


def _host_port(text: str) -> tuple[str, int]:
    """An address, or "address#port"."""
    address, _, port = text.partition("#")
    return address, int(port or 53)


def _from_resolv_conf(text: str) -> tuple[tuple[str, int], ...]:
    words = [line.split() for line in text.splitlines()]
    found = [line[1] for line in words if len(line) >= 2 and line[0] == "nameserver" and line[1] != _OURS]
    return tuple((address, 53) for address in found[:MAX_UPSTREAMS])


class Resolver:
    """Serves every sandbox that was added. Owned by `OverlayHost`, which closes it."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._clients: dict[str, _Client] = {}
        self._forwards = 0
        self._connections = 0
        self._turn = 0

    def add(
        self, sandbox_id: str, udp: socket.socket, tcp: socket.socket, view: View, servers: tuple[str, ...] = ()
    ) -> None:
        """Serve a sandbox on its sockets, until `remove`; closing them is the caller's. `servers`: not the host's."""
        assert sandbox_id not in self._clients, "remove it first"
        client = _Client(udp, tcp, view, Upstreams(servers) if servers else self._upstreams)
        self._clients[sandbox_id] = client
        loop = asyncio.get_running_loop()
        loop.add_reader(udp.fileno(), self._datagrams, client)
        loop.add_reader(tcp.fileno(), self._connection, client)

    async def remove(self, sandbox_id: str) -> None:
        client = self._clients.pop(sandbox_id, None)
        if client is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(client.udp.fileno())
        loop.remove_reader(client.tcp.fileno())
        tasks = list(client.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        for sandbox_id in list(self._clients):
            await self.remove(sandbox_id)

    def _datagrams(self, client: _Client) -> None:
        for _ in range(_DATAGRAMS_PER_WAKE):
            try:
                packet, sender = client.udp.recvfrom(4096)
            except OSError:
                return  # nothing more, or an error that a late answer left behind
            try:
                self._datagram(client, packet, sender)
            except OSError:
                continue  # its receiver is gone or has no room: it will ask again

    def _datagram(self, client: _Client, packet: bytes, sender: tuple[str, int]) -> None:
        query = dns.parse(packet)
        if isinstance(query, dns.Bad):
            if query.reply is not None:
                client.udp.sendto(query.reply, sender)
            return
        answer = self._local(client, query, query.udp_size)
        if answer is not None:
            client.udp.sendto(answer, sender)
        elif not self._may_forward(client):
            client.udp.sendto(dns.reply(query, dns.SERVFAIL), sender)
        else:
            self._own(client, self._forward_datagram(client, query, packet, sender))

    def _local(self, client: _Client, query: dns.Query, limit: int) -> bytes | None:
        """The answer, or None when the query has to be forwarded."""
        self._turn += 1
        decision = dns_answer.decide(query, client.view())
        match decision:
            case dns_answer.Answer(records, more):
                start = self._turn % len(records) if records else 0
                return dns.reply(query, dns.NOERROR, (*records[start:], *records[:start]), limit, more)
            case dns_answer.NoSuchName():
                return dns.reply(query, dns.NXDOMAIN)
            case dns_answer.Forward():
                return None

    def _may_forward(self, client: _Client) -> bool:
        return self._forwards < MAX_FORWARDS and client.forwards < MAX_FORWARDS_PER_SANDBOX

    def _own(self, client: _Client, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)

    async def _forward_datagram(
        self, client: _Client, query: dns.Query, packet: bytes, sender: tuple[str, int]
    ) -> None:
        answer = await self._forward(client, query, packet, _ask_udp)
        if len(answer) > query.udp_size:
            answer = dns.truncated(query)
        with suppress(OSError):
            client.udp.sendto(answer, sender)

    async def _forward(self, client: _Client, query: dns.Query, packet: bytes, ask: Ask) -> bytes:
        self._forwards += 1
        client.forwards += 1
        try:
            for server in client.upstreams.addresses():
                with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(UPSTREAM_TIMEOUT_S):
                        answer = await ask(server, packet, query.question)
                    return dns.with_id(answer, query.id)
            return dns.reply(query, dns.SERVFAIL)
        finally:
            self._forwards -= 1
            client.forwards -= 1

    def _connection(self, client: _Client) -> None:
        try:
            connection, _peer = client.tcp.accept()
        except OSError:
            return
        if self._connections >= MAX_TCP or client.connections >= MAX_TCP_PER_SANDBOX:
            connection.close()
            return
        connection.setblocking(False)
        self._own(client, self._serve(client, connection))

    async def _serve(self, client: _Client, connection: socket.socket) -> None:
        self._connections += 1
        client.connections += 1
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            try:
                with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    while True:
                        await self._serve_one(client, reader, writer)
            finally:
                writer.close()
        finally:
            self._connections -= 1
            client.connections -= 1

    async def _serve_one(self, client: _Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(TCP_IDLE_S):
            packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        query = dns.parse(packet)
        if isinstance(query, dns.Bad):
            if query.reply is None:
                raise asyncio.IncompleteReadError(packet, None)  # not DNS: hang up
            answer = query.reply
        else:
            found = self._local(client, query, dns.MAX_MESSAGE)
            if found is None and self._may_forward(client):
                found = await self._forward(client, query, packet, _ask_tcp)
            answer = found or dns.reply(query, dns.SERVFAIL)
        async with asyncio.timeout(TCP_IDLE_S):
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()


Server = tuple[str, int]
Ask = Callable[[Server, bytes, bytes], Awaitable[bytes]]


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


async def _ask_udp(server: Server, packet: bytes, question: bytes) -> bytes:
    """From a port of its own and under a random id, so that an answer is hard to forge."""
    ident = secrets.randbits(16)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _UdpAnswer(ident, question), remote_addr=server, family=_family(server)
    )
    try:
        transport.sendto(dns.with_id(packet, ident))
        return await protocol.answer
    finally:
        transport.close()


async def _ask_tcp(server: Server, packet: bytes, question: bytes) -> bytes:
    ident = secrets.randbits(16)
    reader, writer = await asyncio.open_connection(*server, family=_family(server))
    try:
        writer.write(len(packet).to_bytes(2, "big") + dns.with_id(packet, ident))
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        if not dns.answers(answer, ident, question):
            raise OSError("not the answer to our question")
        return answer
    finally:
        writer.close()


def _family(server: Server) -> int:
    return socket.AF_INET6 if ":" in server[0] else socket.AF_INET
