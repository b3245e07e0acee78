"""Every kind of published port with real traffic: host mode, one address, local tasks, SCTP, PROXY protocol, ::1."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay_lab import TIMEOUT, Host, Refused, visit
from ports_lab import ANY_V6, CLIENT, CLIENT6, PortsLab, Teller, ask, ask_udp, dial, ports_lab, six, was_reset

from pyswarm_overlay import HostPort, IngressPort

pytestmark = pytest.mark.root
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PROXIED = 9000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PortsLab]:
    """Task 10 on the first host with ports of that host, 12 and 13 on the second, 14 without a way out."""
    directory: Path = tmp_path_factory.mktemp("kinds")
    with ports_lab(directory, {0: [10], 1: [12, 13, 14]}) as lab:
        lab.start()
        for host in lab.hosts:
            host.call("apply_table", lab.table())
        first = lab.hosts[0]
        mine = [
            *(HostPort(protocol=protocol, published=7000, target=80) for protocol in ("tcp", "udp")),  # type: ignore[arg-type]
            *(HostPort(published=number, target=80) for number in range(7100, 7103)),
            HostPort(published=7001, target=80, host_ip=first.address),
            HostPort(published=7002, target=80, host_ip=six(first)),
            HostPort(published=7003, target=81, proxy_protocol=True),
        ]
        lab.attach(10, mine)
        for number in (12, 13):
            lab.attach(number)
        lab.attach(14, egress=False)
        lab.publish(*ports(lab))
        tellers = [Teller(lab.netns(number), f"c{number}") for number in (10, 12, 13, 14)]
        parsers = [ProxyServer(lab.netns(number), f"c{number}", 81) for number in (10, 12, 13)]
        yield lab
        for server in (*tellers, *parsers):
            server.close()
        for host in lab.hosts:
            with contextlib.suppress(Refused):
                host.call("destroy")


def ports(lab: PortsLab) -> list[IngressPort]:
    with_way_out = tuple(backend for backend in lab.port().backends if backend.endpoint_id != "t14")
    return [
        *(lab.port(published_port=8001, policy="local", protocol=protocol) for protocol in ("tcp", "udp")),
        lab.port(published_port=8002, host_ip=lab.hosts[0].address),
        lab.port(published_port=8003, session_affinity="client_ip"),
        lab.port(published_port=8004, protocol="sctp", target_port=5000, backends=with_way_out[1:2]),
        lab.port(published_port=8005, backends=lab.port().backends[-1:]),
        lab.port(published_port=8006, backends=()),
        lab.port(published_port=8006, backends=(), protocol="udp"),
        lab.port(published_port=PROXIED, target_port=81, proxy_protocol=True, backends=with_way_out),
    ]


class ProxyServer:
    """Reads the header by its specification; answers with its name, the client that it was told of and what came."""

    def __init__(self, netns: str, name: str, port: int) -> None:
        self._name = name
        self._listener = visit(
            netns, lambda: socket.create_server((ANY_V6, port), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _peer = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(TIMEOUT)
                stream = connection.makefile("rwb", buffering=0)
                client = _read_header(stream)
                word = stream.readline()
                stream.write(f"{self._name} {client} ".encode() + word)
                stream.read(1)  # until the client goes, or the relay resets

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _read_header(stream: object) -> str:
    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = stream.read(count - len(data))  # type: ignore[attr-defined]
            if not part:
                raise OSError("no header")
            data += part
        return data

    head = exactly(16)
    assert head[:12] == SIGNATURE
    command, family, length = struct.unpack(">BBH", head[12:])
    assert command == 0x21
    body = exactly(length)
    size, kind = {0x11: (4, socket.AF_INET), 0x21: (16, socket.AF_INET6)}[family]
    return socket.inet_ntop(kind, body[:size])


def ask_proxied(netns: str, address: str, port: int = PROXIED) -> tuple[str, str]:
    def connect() -> tuple[str, str]:
        with socket.create_connection((address, port), timeout=TIMEOUT) as connection:
            connection.sendall(b"hello\n")
            name, client, word = connection.makefile().readline().split()
            assert word == "hello"
            return name, client

    return visit(netns, connect)


def is_refused(netns: str, address: str, port: int) -> bool:
    try:
        ask(netns, address, port)
    except ConnectionRefusedError:
        return True
    return False


def is_refused_udp(netns: str, address: str, port: int) -> bool:
    try:
        ask_udp(netns, address, port)
    except ConnectionRefusedError:
        return True
    return False


def own(host: Host) -> str:
    return host.netns()


def test_host_mode_in_both_families_and_protocols(made: PortsLab) -> None:
    first, second, _third = made.hosts
    for address, client in ((first.address, CLIENT), (six(first), CLIENT6)):
        assert ask(made.client, address, 7000) == ("c10", client)
        assert ask_udp(made.client, address, 7000) == ("c10", client)
        assert {ask(made.client, address, number)[0] for number in (7100, 7101, 7102)} == {"c10"}
    assert is_refused(made.client, second.address, 7000)


def test_one_address_is_one_address(made: PortsLab) -> None:
    first, second, _third = made.hosts
    assert ask(made.client, first.address, 7001)[0] == "c10"
    assert is_refused(made.client, six(first), 7001)
    assert ask(made.client, six(first), 7002)[0] == "c10"
    assert is_refused(made.client, first.address, 7002)
    assert {ask(made.client, first.address, 8002)[0] for _ in range(8)} >= {"c10", "c12", "c13"}
    assert is_refused(made.client, six(first), 8002)
    assert is_refused(made.client, second.address, 8002)


def test_policy_local_refuses_at_once_where_no_task_is(made: PortsLab) -> None:
    first, _second, third = made.hosts
    for address, client in ((first.address, CLIENT), (six(first), CLIENT6)):
        assert {ask(made.client, address, 8001) for _ in range(4)} == {("c10", client)}
        assert {ask_udp(made.client, address, 8001) for _ in range(4)} == {("c10", client)}
    for address in (third.address, six(third)):
        assert is_refused(made.client, address, 8001)
        assert is_refused_udp(made.client, address, 8001)
        assert is_refused(made.client, address, 8006)
        assert is_refused_udp(made.client, address, 8006)


def test_a_client_meets_the_same_task_through_every_node(made: PortsLab) -> None:
    for addresses in ([host.address for host in made.hosts], [six(host) for host in made.hosts]):
        assert len({ask(made.client, address, 8003)[0] for address in addresses for _ in range(3)}) == 1


def test_a_task_without_a_way_out_is_reached_as_its_node(made: PortsLab) -> None:
    for host in made.hosts:
        assert ask(made.client, host.address, 8005)[0] == "c14"
        assert ask(made.client, six(host), 8005)[0] == "c14"


def test_localhost_and_the_hosts_own_addresses(made: PortsLab) -> None:
    """`::1` is refused at once, so that a program that knows both goes on to 127.0.0.1."""
    first, _second, third = made.hosts
    for host in (first, third):
        assert {ask(own(host), "127.0.0.1", 8003)[0], ask(own(host), host.address, 8003)[0]} <= {
            "c10",
            "c12",
            "c13",
            "c14",
        }
        assert ask(own(host), six(host), 8003)
        assert is_refused(own(host), "::1", 8003)
    assert ask(own(first), "127.0.0.1", 7000)[0] == "c10"


def test_sandboxes_reach_ports_of_every_node_and_the_world_in_both_families(made: PortsLab) -> None:
    teller = Teller(made.client, "outside", 8500)
    try:
        for address, seen in ((CLIENT, made.hosts[0].address), (CLIENT6, six(made.hosts[0]))):
            assert ask(made.netns(10), address, 8500) == ("outside", seen)
            assert ask_udp(made.netns(10), address, 8500) == ("outside", seen)
    finally:
        teller.close()
    for host in made.hosts:
        assert ask(made.netns(10), host.address, 8003)
    assert ask(made.netns(10), six(made.hosts[0]), 7000)[0] == "c10"


def test_the_proxy_protocol_names_the_client_in_both_families(made: PortsLab) -> None:
    for host in made.hosts:
        for address, client in ((host.address, CLIENT), (six(host), CLIENT6)):
            answers = {ask_proxied(made.client, address) for _ in range(3)}
            assert {name for name, _seen in answers} == {"c10", "c12", "c13"}
            assert {seen for _name, seen in answers} == {client}
    assert ask_proxied(made.client, made.hosts[0].address, 7003) == ("c10", CLIENT)
    assert ask_proxied(own(made.hosts[2]), "::1") in {(name, "::1") for name in ("c10", "c12", "c13")}


def test_connections_with_the_proxy_protocol_outlive_the_daemon(made: PortsLab) -> None:
    third = made.hosts[2]
    connection = visit(made.client, lambda: socket.create_connection((third.address, PROXIED), timeout=TIMEOUT))
    third.kill()
    connection.sendall(b"later\n")
    assert connection.recv(100).split()[1:] == [CLIENT.encode(), b"later"]
    third.start()
    assert ask_proxied(made.client, third.address)[1] == CLIENT
    others = [port for port in ports(made) if not port.proxy_protocol]
    third.call("set_ingress", ["10.9.0.4/24", "fd09::4/64"], others)
    assert was_reset(connection)
    assert is_refused(made.client, third.address, PROXIED)
    made.publish(*ports(made))
    connection.close()


def test_a_relay_that_was_killed_is_started_again(made: PortsLab) -> None:
    third = made.hosts[2]
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as control:
        control.connect(f"/proc/{third.pid}/root{third.config.run_dir}/relay.sock")
        credentials = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = struct.unpack("3i", credentials)[0]
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([process], [], [], TIMEOUT)[0]
    os.close(process)
    third.call("verify")
    assert ask_proxied(made.client, third.address)[1] == CLIENT


def test_sctp_is_translated_there_and_back(made: PortsLab) -> None:
    """Crafted packets, since this kernel need not know the protocol to translate it."""
    second, third = made.hosts[1:]
    server = visit(made.netns(12), lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 132))
    client = visit(made.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 132))
    try:
        for host, tag in ((second, 11), (third, 12)):
            source = 50_000 + tag
            client.sendto(sctp(source, 8004, 1, tag), (host.address, 0))
            data, sender = receive(server)
            assert sender == CLIENT
            assert struct.unpack(">HH", data[:4]) == (source, 5000)
            server.sendto(sctp(5000, source, 2, tag), (CLIENT, 0))
            data, sender = receive(client)
            assert sender == host.address
            assert struct.unpack(">HH", data[:4]) == (8004, source)
    finally:
        server.close()
        client.close()


def receive(sock: socket.socket) -> tuple[bytes, str]:
    sock.settimeout(TIMEOUT)
    packet, (sender, _port) = sock.recvfrom(4096)
    return packet[(packet[0] & 15) * 4 :], sender


def sctp(source: int, target: int, kind: int, tag: int) -> bytes:
    """INIT (1) or its acknowledgement (2), with the CRC32c that connection tracking checks."""
    cookie = struct.pack(">HH4s", 7, 8, b"cook") if kind == 2 else b""
    chunk = struct.pack(">BBHIIHHI", kind, 0, 20 + len(cookie), tag, 65536, 1, 1, tag) + cookie
    head = struct.pack(">HHI", source, target, tag if kind == 2 else 0)
    return head + struct.pack("<I", crc32c(head + b"\0\0\0\0" + chunk)) + chunk


def crc32c(data: bytes) -> int:
    total = 0xFFFFFFFF
    for byte in data:
        total ^= byte
        for _ in range(8):
            total = total >> 1 ^ (0x82F63B78 if total & 1 else 0)
    return total ^ 0xFFFFFFFF


def test_ports_are_refused_with_who_has_them(made: PortsLab) -> None:
    first = made.hosts[0]
    made.tasks[0].append(20)
    try:
        with pytest.raises(Refused, match=r"Bind for 0\.0\.0\.0:7000 failed: port is already allocated"):
            made.attach(20, [HostPort(published=7000, target=80)])
        with pytest.raises(Refused, match="cannot assign requested address"):
            made.attach(20, [HostPort(published=7200, target=80, host_ip="203.0.113.9")])
    finally:
        first.call("detach", "c20")
        made.tasks[0].remove(20)


def test_rules_and_routes_are_repaired(made: PortsLab) -> None:
    third = made.hosts[2]
    rules = third.run("ip", "rule").splitlines()
    marked = [line.split(":")[0] for line in rules if "fwmark 0x70" in line]
    assert marked
    third.run("ip", "rule", "del", "pref", marked[-1])
    third.run("nft", "delete", "chain", "inet", "ps_overlay", "mark_own")
    third.call("verify")
    assert sorted(third.run("ip", "rule").splitlines()) == sorted(rules)
    assert third.call("verify") == []
    connection = dial(made.client, third.address, 8003)
    connection.close()
