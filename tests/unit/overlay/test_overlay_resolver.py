"""The resolver's shell on loopback sockets: UDP, TCP, forwarding, limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import cast

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest
from overlay_values import endpoint, table

from pyswarm_overlay import resolver as resolver_module
from pyswarm_overlay.core.dns_answer import Names, View
from pyswarm_overlay.core.tables import TableState
from pyswarm_overlay.resolver import Resolver, Upstreams

STATE = TableState.of(table(*(endpoint(number) for number in range(3, 203))))
VIEW = View([Names(STATE)])


def sockets() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.create_server(("127.0.0.1", 0))
    udp.bind(tcp.getsockname())
    for sock in (udp, tcp):
        sock.setblocking(False)
    return udp, tcp


class Upstream(asyncio.DatagramProtocol):
    """Answers everything with SERVFAIL's opposite: an empty NOERROR; names under `silent.` never."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        name = str(query.question[0].name)
        self.asked.append(name)
        if name.startswith("silent."):
            return
        forged = dns.message.make_response(dns.message.make_query("evil.test", "A", id=query.id))
        self.transport.sendto(forged.to_wire(), addr)
        self.transport.sendto(dns.message.make_response(query).to_wire(), addr)


@pytest.fixture
async def upstream() -> AsyncIterator[tuple[Upstream, str]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Upstream, local_addr=("127.0.0.1", 0))
    yield protocol, f"127.0.0.1#{transport.get_extra_info('sockname')[1]}"
    transport.close()


@pytest.fixture
async def server(upstream: tuple[Upstream, str]) -> AsyncIterator[int]:
    """The port of a resolver with one sandbox."""
    resolver = Resolver(Upstreams((upstream[1],)))
    udp, tcp = sockets()
    resolver.add("c1", udp, tcp, lambda: VIEW)
    yield udp.getsockname()[1]
    await resolver.close()
    udp.close()
    tcp.close()


async def by_udp(port: int, name: str, **options: int) -> dns.message.Message:
    return await dns.asyncquery.udp(dns.message.make_query(name, "A", **options), "127.0.0.1", port=port, timeout=10)


async def by_tcp(port: int, name: str) -> dns.message.Message:
    return await dns.asyncquery.tcp(dns.message.make_query(name, "A"), "127.0.0.1", port=port, timeout=10)


async def test_long_answers_are_truncated_by_udp_and_whole_by_tcp(server: int) -> None:
    short = await by_udp(server, "tasks.web")
    assert short.flags & dns.flags.TC
    whole = await by_tcp(server, "tasks.web")
    assert not whole.flags & dns.flags.TC
    assert sum(len(rrset) for rrset in whole.answer) == 200


async def test_other_names_go_upstream_and_forged_answers_are_passed_over(
    server: int, upstream: tuple[Upstream, str]
) -> None:
    answer = await by_udp(server, "Example.COM")
    assert answer.rcode() == dns.rcode.NOERROR
    assert upstream[0].asked == ["Example.COM."]
    await by_udp(server, "web")
    await by_udp(server, "nosuch")
    assert len(upstream[0].asked) == 1


async def test_a_silent_upstream_is_a_server_failure(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "UPSTREAM_TIMEOUT_S", 0.05)
    assert (await by_udp(server, "silent.test")).rcode() == dns.rcode.SERVFAIL


async def test_too_many_forwards_fail_at_once(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "MAX_FORWARDS_PER_SANDBOX", 0)
    assert (await by_udp(server, "example.com")).rcode() == dns.rcode.SERVFAIL
    assert (await by_udp(server, "web")).rcode() == dns.rcode.NOERROR


async def test_tcp_upstream_that_refuses_is_a_server_failure(server: int) -> None:
    assert (await by_tcp(server, "example.com")).rcode() == dns.rcode.SERVFAIL


async def test_rubbish_does_not_stop_it(server: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for packet in (b"", b"x", b"\0" * 11, b"\0" * 12, b"\xff" * 600):
            sock.sendto(packet, ("127.0.0.1", server))
    reader, writer = await asyncio.open_connection("127.0.0.1", server)
    writer.write(b"\0\3abc")
    assert await reader.read() == b""
    writer.close()
    assert (await by_udp(server, "web")).rcode() == dns.rcode.NOERROR


async def test_several_queries_on_one_connection(server: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server)
    for name in ("web", "tasks.web", "nosuch"):
        wire = dns.message.make_query(name, "A").to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
    for rcode in (dns.rcode.NOERROR, dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        length = int.from_bytes(await reader.readexactly(2), "big")
        assert dns.message.from_wire(await reader.readexactly(length)).rcode() == rcode
    writer.close()


def test_the_hosts_resolvers_are_read() -> None:
    text = (
        "# comment\nsearch example.com\nnameserver 192.0.2.53\nnameserver 127.0.0.11\nnameserver fd00::53\nnameserver\n"
    )
    assert resolver_module._from_resolv_conf(text) == (("192.0.2.53", 53), ("fd00::53", 53))
