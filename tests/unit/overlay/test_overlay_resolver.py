"""The name server's shell on loopback sockets: UDP, TCP, forwarding, limits, and that nothing stale is answered."""

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

from pyswarm_overlay import TableDelta
from pyswarm_overlay.resolving import forwarding
from pyswarm_overlay.resolving import server as server_module
from pyswarm_overlay.resolving.forwarding import Health
from pyswarm_overlay.resolving.server import NameServer

TABLE = table(*(endpoint(number) for number in range(3, 203)))


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
async def names(upstream: tuple[Upstream, str]) -> AsyncIterator[tuple[NameServer, int]]:
    """A server with one sandbox, and the port that it is asked at."""
    made = NameServer()
    made.set_upstreams((upstream[1],))
    made.put_table(TABLE)
    udp, tcp = sockets()
    port = udp.getsockname()[1]
    made.add("c1", (udp, tcp), ("n1",), {})
    yield made, port
    await made.close()


@pytest.fixture
def server(names: tuple[NameServer, int]) -> int:
    return names[1]


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
    monkeypatch.setattr(forwarding, "TIMEOUT_S", 0.05)
    assert (await by_udp(server, "silent.test")).rcode() == dns.rcode.SERVFAIL


async def test_too_many_forwards_fail_at_once(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_FORWARDS_PER_SANDBOX", 0)
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
    assert forwarding.from_resolv_conf(text) == (("192.0.2.53", 53), ("fd00::53", 53))


def test_a_silent_upstream_is_asked_last_and_waited_for_briefly() -> None:
    now = 0.0
    health = Health(lambda: now)
    first, second = ("192.0.2.1", 53), ("192.0.2.2", 53)
    health.was_silent("", first)
    health.answered("", first)
    health.was_silent("", first)
    assert [server for server, _patience in health.order("", (first, second))] == [first, second]
    health.was_silent("", first)
    assert health.order("", (first, second)) == [
        (second, forwarding.TIMEOUT_S),
        (first, forwarding.DEAD_TIMEOUT_S),
    ]
    assert health.order("another namespace", (first,)) == [(first, forwarding.TIMEOUT_S)]
    now = forwarding.DEAD_FOR_S + 1
    assert health.order("", (first,)) == [(first, forwarding.TIMEOUT_S)]


async def test_an_answer_is_never_older_than_the_table(names: tuple[NameServer, int]) -> None:
    server, port = names
    for version in range(2, 40):
        number = 10 + version
        delta = TableDelta(
            network_id="n1",
            from_version=version - 1,
            version=version,
            upsert_endpoints=(endpoint(3, endpoint_id="moving", aliases=("moving",), addresses=(f"10.0.1.{number}",)),),
        )
        server.change(delta)
        for _ in range(2):  # the second time from the cache
            answer = await by_udp(port, "moving")
            assert [str(record) for rrset in answer.answer for record in rrset] == [f"10.0.1.{number}"]
    server.change(TableDelta(network_id="n1", from_version=39, version=40, remove_endpoints=("moving",)))
    assert (await by_udp(port, "moving")).rcode() == dns.rcode.NXDOMAIN
    server.forget("n1")
    assert (await by_udp(port, "web")).rcode() == dns.rcode.NXDOMAIN


async def test_several_addresses_come_in_turn(names: tuple[NameServer, int]) -> None:
    server, port = names
    server.put_table(table(*(endpoint(number) for number in (3, 4, 5))))
    firsts = {str((await by_udp(port, "tasks.web")).answer[0][0]) for _ in range(3)}
    firsts_by_tcp = {str((await by_tcp(port, "tasks.web")).answer[0][0]) for _ in range(3)}
    assert firsts == firsts_by_tcp == {"10.0.1.3", "10.0.1.4", "10.0.1.5"}


async def test_the_cache_is_bounded_and_random_capitals_come_back(
    names: tuple[NameServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CACHED", 2)
    for name in ("WEB", "wEb", "weB", "Web", "nosuch", "web"):
        answer = await by_udp(names[1], name)
        assert str(answer.question[0].name) == f"{name}."
