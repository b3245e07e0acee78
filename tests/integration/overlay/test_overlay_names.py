"""Names in real sandboxes: slots, ports, both families, servers of their own; without a daemon; while tables change."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.reversename
import dns.rrset
import pytest
from overlay_lab import Host, Lab, visit

from pyswarm_overlay import Attachment, EndpointRecord, NetworkTable, Sandbox, ServiceRecord, TableDelta
from pyswarm_overlay.types import ServicePort

pytestmark = pytest.mark.root

NET = "net1"
VIPS = ("10.0.1.2", "fd00:1::2")


def endpoint(number: int, host: Host, **changes: Any) -> EndpointRecord:
    settings: dict[str, Any] = {
        "endpoint_id": f"t{number}",
        "name": f"web.{number}",
        "hostname": f"c{number}",
        "addresses": (f"10.0.1.{number}", f"fd00:1::{number}"),
        "node_address": host.address,
        "service_id": "svc",
        "slot": number - 9,
        "ready": True,
    }
    return EndpointRecord(**{**settings, **changes})


def table(host: Host) -> NetworkTable:
    service = ServiceRecord(
        service_id="svc", name="web", vips=VIPS, aliases=("www",), ports=(ServicePort(name="http", target=80),)
    )
    return NetworkTable(
        network_id=NET,
        name="front",
        vni=4097,
        subnets=("10.0.1.0/24", "fd00:1::/64"),
        version=1,
        endpoints=(endpoint(10, host), endpoint(11, host)),
        services=(service,),
    )


def box(number: int, **changes: Any) -> Sandbox:
    attachment = Attachment(
        network_id=NET, endpoint_id=f"t{number}", addresses=(f"10.0.1.{number}/24", f"fd00:1::{number}/64")
    )
    settings: dict[str, Any] = {"sandbox_id": f"c{number}", "hostname": f"c{number}", "attachments": (attachment,)}
    return Sandbox(**{**settings, **changes})


def resolve(host: Host, name: str, kind: str = "A", *, sandbox: str = "c10", tcp: bool = False) -> dns.message.Message:
    query, ask = dns.message.make_query(name, kind), dns.query.tcp if tcp else dns.query.udp
    return host.visit(sandbox, lambda: ask(query, "127.0.0.11", timeout=10))


def found(answer: dns.message.Message) -> set[str]:
    return {str(record) for rrset in answer.answer for record in rrset}


@pytest.fixture
def host(lab: Lab) -> Host:
    """c10 and c11 are the service's tasks of slots 1 and 2."""
    first = lab.hosts[0]
    first.call("apply_table", table(first))
    first.call("attach_all", [box(10), box(11)])
    return first


def test_slots_ports_and_both_families(host: Host) -> None:
    assert found(resolve(host, "web")) == {VIPS[0]}
    assert found(resolve(host, "web", "AAAA")) == {VIPS[1]}
    assert found(resolve(host, "2.web")) == {"10.0.1.11"}
    assert found(resolve(host, "2.WEB.front", "AAAA", tcp=True)) == {"fd00:1::11"}
    assert resolve(host, "3.web").rcode() == dns.rcode.NXDOMAIN
    assert found(resolve(host, "_http._tcp.web", "SRV")) == {"0 0 80 web.front."}
    assert found(resolve(host, "_http._tcp.tasks.web", "SRV")) == {"0 0 80 web.10.front.", "0 0 80 web.11.front."}
    for address, name in ((VIPS[0], "web"), (VIPS[1], "web"), ("10.0.1.11", "web.11"), ("fd00:1::11", "web.11")):
        assert found(resolve(host, str(dns.reversename.from_address(address)), "PTR")) == {f"{name}.front."}


def test_names_are_answered_while_no_daemon_lives_and_by_the_next(host: Host) -> None:
    host.kill()
    assert found(resolve(host, "tasks.web")) == {"10.0.1.10", "10.0.1.11"}
    assert found(resolve(host, "web", tcp=True)) == {VIPS[0]}
    host.start()
    gone = TableDelta(network_id=NET, from_version=1, version=2, remove_endpoints=("t11",))
    assert host.call("apply_delta", gone)
    assert found(resolve(host, "tasks.web")) == {"10.0.1.10"}
    host.call("detach", "c11")
    host.call("destroy")
    assert list(host.config.run_dir.glob("resolver-*.sock")) == []


@pytest.fixture
def storm(host: Host) -> Iterator[None]:
    """Others ask all the time."""
    stop = threading.Event()

    def ask() -> None:
        query = dns.message.make_query("tasks.web", "A")
        while not stop.is_set():
            assert dns.query.udp(query, "127.0.0.11", timeout=10).rcode() == dns.rcode.NOERROR

    asking = threading.Thread(target=lambda: host.visit("c11", ask))
    asking.start()
    yield
    stop.set()
    asking.join()


@pytest.mark.usefixtures("storm")
def test_an_applied_table_is_answered_from_at_once(host: Host) -> None:
    for version in range(2, 60):
        record = endpoint(10, host, addresses=("10.0.1.10", f"fd00:1::{version:x}"))
        delta = TableDelta(network_id=NET, from_version=version - 1, version=version, upsert_endpoints=(record,))
        assert host.call("apply_delta", delta)
        assert found(resolve(host, "1.web", "AAAA")) == {f"fd00:1::{version:x}"}


class NameServer:
    """Answers every question of a sandbox's own with 192.0.2.77, by UDP; lives in the test process."""

    def __init__(self, netns: str) -> None:
        self._socket = visit(netns, self._open)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @staticmethod
    def _open() -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind(("fd00:1::11", 53))
        return made

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if not data:
                return
            answer = dns.message.make_response(dns.message.from_wire(data))
            answer.answer.append(dns.rrset.from_text(answer.question[0].name, 1, "IN", "A", "192.0.2.77"))
            self._socket.sendto(answer.to_wire(), sender)

    def close(self, netns: str) -> None:
        def end() -> None:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"", ("fd00:1::11", 53))

        visit(netns, end)
        self._thread.join()
        self._socket.close()


def test_servers_of_a_sandbox_are_asked_from_inside_it(host: Host) -> None:
    """The server is another sandbox, which the host itself cannot reach; and it is asked over IPv6."""
    host.call("attach", box(10, dns=("fd00:1::11",)))
    server = NameServer(host.netns("c11"))
    try:
        assert found(resolve(host, "example.test")) == {"192.0.2.77"}
        assert found(resolve(host, "web")) == {VIPS[0]}
    finally:
        server.close(host.netns("c11"))
