"""The DNS server of all sandboxes on this host: one event loop, two sockets per sandbox, the zones of their networks.

Answers come from `core.dns_answer`. One that was given before is given again from a cache as long as no network of the
sandbox changed, so an answer is never older than the tables held here. Bounded: so many forwarded queries at once (in
all and per sandbox; beyond it SERVFAIL at once), so many TCP connections (beyond it closed), so many cached answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pyswarm_overlay.core import dns_answer
from pyswarm_overlay.core import dns_message as dns
from pyswarm_overlay.core.zone import Zone
from pyswarm_overlay.types import NetworkTable, TableDelta

from .forwarding import Forwarder, Upstreams

MAX_FORWARDS = 1024
MAX_FORWARDS_PER_SANDBOX = 256
MAX_TCP = 512
MAX_TCP_PER_SANDBOX = 32
TCP_IDLE_S = 10.0
MAX_CACHED = 512
_MAX_CACHED_QUERY = 128
_MAX_ROTATIONS = 16
_DATAGRAMS_PER_WAKE = 64
_QUERY_BYTES = 4096


class Prepared:
    """One answer in its rotations, each written when it is first sent; without the id, which comes first."""

    __slots__ = ("_answer", "_query", "_wires")

    def __init__(self, query: dns.Query, answer: dns_answer.Answer | None) -> None:
        """`None`: no such name."""
        self._query = query
        self._answer = answer
        count = 1 if answer is None else max(1, min(len(answer.records), _MAX_ROTATIONS))
        self._wires: list[bytes | None] = [None] * count

    def wire(self, turn: int) -> bytes:
        place = turn % len(self._wires)
        wire = self._wires[place]
        if wire is None:
            wire = self._wires[place] = self._write(place)[2:]
        return wire

    def _write(self, place: int) -> bytes:
        return write(self._query, self._answer, place, len(self._wires), self._query.udp_size)


def write(query: dns.Query, answer: dns_answer.Answer | None, turn: int, turns: int, limit: int) -> bytes:
    """The answer that begins at that of `turns` places in its records, so that clients which take the first spread."""
    if answer is None:
        return dns.reply(query, dns.NXDOMAIN)
    records = answer.records
    start = turn % turns * len(records) // turns
    return dns.reply(query, dns.NOERROR, (*records[start:], *records[:start]), limit, answer.more)


@dataclass(slots=True, eq=False)
class _Client:
    """One sandbox's sockets and what it has under way."""

    udp: socket.socket
    tcp: socket.socket
    networks: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]]
    upstreams: Upstreams
    inside: socket.socket | None
    """Where its own servers are asked from; None: they are the host's."""
    view: dns_answer.View
    cache: dict[bytes, Prepared] = field(default_factory=dict)
    turn: int = 0
    forwards: int = 0
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class NameServer:
    """Serves every sandbox that was added. It owns the sockets it was given."""

    def __init__(self, forwarder: Forwarder | None = None) -> None:
        self._forwarder = forwarder or Forwarder()
        self._upstreams = Upstreams(())
        self._zones: dict[str, Zone] = {}
        self._clients: dict[str, _Client] = {}
        self._forwards = 0
        self._connections = 0

    # -- what is known -------------------------------------------------------------------------------------------------

    def set_upstreams(self, servers: tuple[str, ...] | None) -> None:
        """For sandboxes without servers of their own; None: those of /etc/resolv.conf. Before any sandbox is added."""
        self._upstreams = Upstreams(servers)
        for client in self._clients.values():
            if client.inside is None:
                client.upstreams = self._upstreams

    def put_table(self, table: NetworkTable) -> None:
        self._zones[table.network_id] = Zone(table)
        self._changed(table.network_id)

    def change(self, delta: TableDelta) -> None:
        """Of a network that was put."""
        self._zones[delta.network_id].apply(delta)
        self._changed(delta.network_id)

    def forget(self, network_id: str) -> None:
        if self._zones.pop(network_id, None) is not None:
            self._changed(network_id)

    def _changed(self, network_id: str) -> None:
        for client in self._clients.values():
            if network_id in client.networks:
                client.view = self._view(client.networks, client.own)
                client.cache.clear()

    def _view(self, networks: tuple[str, ...], own: Mapping[str, tuple[str, ...]]) -> dns_answer.View:
        found = (self._zones.get(network_id) for network_id in networks)
        return dns_answer.View([zone for zone in found if zone is not None and not zone.is_silent], own)

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(self._zones)

    @property
    def sandboxes(self) -> tuple[str, ...]:
        return tuple(self._clients)

    # -- who is served -------------------------------------------------------------------------------------------------

    def add(
        self,
        sandbox_id: str,
        sockets: tuple[socket.socket, socket.socket],
        networks: tuple[str, ...],
        own: Mapping[str, tuple[str, ...]],
        servers: tuple[str, ...] = (),
    ) -> None:
        """Serve a sandbox on its sockets (UDP, TCP). `servers`: whom it asks for other names, if not the host's."""
        assert sandbox_id not in self._clients, "remove it first"
        udp, tcp = sockets
        upstreams = Upstreams(servers) if servers else self._upstreams
        inside = udp if servers else None
        client = _Client(udp, tcp, networks, own, upstreams, inside, self._view(networks, own))
        self._clients[sandbox_id] = client
        loop = asyncio.get_running_loop()
        loop.add_reader(udp.fileno(), self._datagrams, client)
        loop.add_reader(tcp.fileno(), self._connection, client)

    def rename(self, sandbox_id: str, new_id: str) -> None:
        self._clients[new_id] = self._clients.pop(sandbox_id)

    async def remove(self, sandbox_id: str) -> None:
        """No-op if unknown."""
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
        client.udp.close()
        client.tcp.close()

    async def close(self) -> None:
        for sandbox_id in list(self._clients):
            await self.remove(sandbox_id)

    # -- datagrams -----------------------------------------------------------------------------------------------------

    def _datagrams(self, client: _Client) -> None:
        """As many as are there, up to a bound: others want their turn."""
        receive, send, cache = client.udp.recvfrom, client.udp.sendto, client.cache
        for _ in range(_DATAGRAMS_PER_WAKE):
            try:
                packet, sender = receive(_QUERY_BYTES)
            except OSError:
                return  # nothing more, or an error that a late answer left behind
            prepared = cache.get(packet[2:])
            try:
                if prepared is None:
                    self._datagram(client, packet, sender)
                else:
                    client.turn += 1
                    send(packet[:2] + prepared.wire(client.turn), sender)
            except OSError:
                continue  # its receiver is gone or has no room: it will ask again

    def _datagram(self, client: _Client, packet: bytes, sender: tuple[str, int]) -> None:
        query = dns.parse(packet)
        if isinstance(query, dns.Bad):
            if query.reply is not None:
                client.udp.sendto(query.reply, sender)
            return
        decision = dns_answer.decide(query, client.view)
        if not isinstance(decision, dns_answer.Forward):
            prepared = Prepared(query, decision if isinstance(decision, dns_answer.Answer) else None)
            self._keep(client, packet, prepared)
            client.turn += 1
            client.udp.sendto(packet[:2] + prepared.wire(client.turn), sender)
        elif not self._may_forward(client):
            client.udp.sendto(dns.reply(query, dns.SERVFAIL), sender)
        else:
            self._own(client, self._forward_datagram(client, query, packet, sender))

    @staticmethod
    def _keep(client: _Client, packet: bytes, prepared: Prepared) -> None:
        if len(packet) > _MAX_CACHED_QUERY:
            return
        if len(client.cache) >= MAX_CACHED:
            client.cache.clear()
        client.cache[packet[2:]] = prepared

    async def _forward_datagram(
        self, client: _Client, query: dns.Query, packet: bytes, sender: tuple[str, int]
    ) -> None:
        answer = await self._forward(client, query, packet, tcp=False)
        if len(answer) > query.udp_size:
            answer = dns.truncated(query)
        with suppress(OSError):
            client.udp.sendto(answer, sender)

    # -- forwarding ----------------------------------------------------------------------------------------------------

    def _may_forward(self, client: _Client) -> bool:
        return self._forwards < MAX_FORWARDS and client.forwards < MAX_FORWARDS_PER_SANDBOX

    async def _forward(self, client: _Client, query: dns.Query, packet: bytes, *, tcp: bool) -> bytes:
        self._forwards += 1
        client.forwards += 1
        try:
            return await self._forwarder.ask(query, packet, client.upstreams.servers(), client.inside, tcp=tcp)
        finally:
            self._forwards -= 1
            client.forwards -= 1

    def _own(self, client: _Client, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)

    # -- connections ---------------------------------------------------------------------------------------------------

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
        if not isinstance(query, dns.Bad):
            answer = await self._whole_answer(client, query, packet)
        elif query.reply is not None:
            answer = query.reply
        else:
            raise asyncio.IncompleteReadError(packet, None)  # not DNS: hang up
        async with asyncio.timeout(TCP_IDLE_S):
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()

    async def _whole_answer(self, client: _Client, query: dns.Query, packet: bytes) -> bytes:
        decision = dns_answer.decide(query, client.view)
        if isinstance(decision, dns_answer.Forward):
            if not self._may_forward(client):
                return dns.reply(query, dns.SERVFAIL)
            return await self._forward(client, query, packet, tcp=True)
        client.turn += 1
        answer = decision if isinstance(decision, dns_answer.Answer) else None
        turns = 1 if answer is None else max(1, len(answer.records))
        return write(query, answer, client.turn, turns, dns.MAX_MESSAGE)
