"""The overlay on a real kernel: two hosts, sandboxes on them, real sockets."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from overlay_lab import Host, Lab, Refused, ask, ask_udp, visit

from pyswarm_overlay import (
    Attachment,
    EndpointRecord,
    HostPort,
    IngressBackend,
    IngressPort,
    NetworkTable,
    Sandbox,
    ServiceRecord,
    TableDelta,
)

pytestmark = pytest.mark.root

NET = "net1"
VIP = "10.0.1.2"


def endpoint(number: int, host: Host, *, ready: bool = True, service: str | None = "svc-web") -> EndpointRecord:
    return EndpointRecord(
        endpoint_id=f"t{number}",
        name=f"web.{number}",
        hostname=f"c{number}",
        addresses=(f"10.0.1.{number}",),
        node_address=host.address,
        service_id=service,
        ready=ready,
    )


def web_table(*endpoints: EndpointRecord, version: int = 1, **changes: Any) -> NetworkTable:
    settings: dict[str, Any] = {
        "network_id": NET,
        "name": "web",
        "vni": 4097,
        "subnets": ("10.0.1.0/24",),
        "version": version,
        "endpoints": endpoints,
        "services": (ServiceRecord(service_id="svc-web", name="web", vips=(VIP,), aliases=("www",)),),
    }
    return NetworkTable(**{**settings, **changes})


def box(number: int, **changes: Any) -> Sandbox:
    attachment = Attachment(network_id=NET, endpoint_id=f"t{number}", addresses=(f"10.0.1.{number}/24",))
    settings: dict[str, Any] = {"sandbox_id": f"c{number}", "hostname": f"c{number}", "attachments": (attachment,)}
    return Sandbox(**{**settings, **changes})


def resolve(host: Host, sandbox: str, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    ask_server = dns.query.tcp if tcp else dns.query.udp
    return host.visit(sandbox, lambda: ask_server(query, "127.0.0.11", timeout=8))


def echo(connection: socket.socket) -> bytes:
    connection.sendall(b"who are you?")
    return connection.recv(100)


def addresses(answer: dns.message.Message) -> set[str]:
    return {str(record) for rrset in answer.answer for record in rrset}


@pytest.fixture
def web(lab: Lab) -> Lab:
    """c10 and c11 on the first host, c12 on the second, all of them the service web."""
    first, second = lab.hosts
    table = web_table(endpoint(10, first), endpoint(11, first), endpoint(12, second))
    for host in lab.hosts:
        host.call("apply_table", table)
    first.call("attach_all", [box(10), box(11)])
    second.call("attach", box(12))
    for number, host in ((10, first), (11, first), (12, second)):
        lab.serve(host.netns(f"c{number}"), f"c{number}")
    return lab


def test_containers_reach_one_another_across_hosts(web: Lab) -> None:
    first, second = web.hosts
    assert first.visit("c10", lambda: ask("10.0.1.12")) == ["c12", "10.0.1.10"]
    assert second.visit("c12", lambda: ask("10.0.1.10")) == ["c10", "10.0.1.12"]
    assert first.visit("c10", lambda: ask("10.0.1.11")) == ["c11", "10.0.1.10"]
    largest = str(1450 - 28)
    ping = first.run("ping", "-c1", "-W2", "-Mdo", "-s", largest, "10.0.1.12", netns=first.netns("c10"))
    assert "1 received" in ping


def test_a_vip_spreads_over_all_backends_and_keeps_the_clients_address(web: Lab) -> None:
    first, _second = web.hosts
    answers = [first.visit("c10", lambda: ask(VIP)) for _ in range(9)]
    assert Counter(name for name, _client in answers) == {"c10": 3, "c11": 3, "c12": 3}
    assert {client for _name, client in answers} == {"10.0.1.10"}
    assert {first.visit("c10", lambda: ask_udp(VIP))[0] for _ in range(3)} == {"c10", "c11", "c12"}


def test_names(web: Lab) -> None:
    first, _second = web.hosts
    assert addresses(resolve(first, "c10", "web")) == {VIP}
    assert addresses(resolve(first, "c10", "WWW")) == {VIP}
    assert addresses(resolve(first, "c10", "web", tcp=True)) == {VIP}
    assert addresses(resolve(first, "c10", "tasks.web")) == {"10.0.1.10", "10.0.1.11", "10.0.1.12"}
    assert addresses(resolve(first, "c10", "web.12")) == {"10.0.1.12"}
    assert addresses(resolve(first, "c10", "c11")) == {"10.0.1.11"}
    assert addresses(resolve(first, "c10", "12.1.0.10.in-addr.arpa", "PTR")) == {"web.12.web."}
    assert resolve(first, "c10", "nosuch").rcode() == dns.rcode.NXDOMAIN
    empty = resolve(first, "c10", "web", "AAAA")
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])
    ttl = resolve(first, "c10", "web").answer[0].ttl
    assert ttl == 1


def test_other_names_are_forwarded(web: Lab) -> None:
    first, _second = web.hosts
    assert resolve(first, "c10", "example.test").rcode() == dns.rcode.SERVFAIL


def test_a_withdrawn_backend_gets_no_new_connections_and_keeps_its_old_ones(web: Lab) -> None:
    first, second = web.hosts
    held = {}
    for _ in range(3):
        connection = first.visit("c10", lambda: socket.create_connection((VIP, 80), timeout=5))
        held[connection.makefile().readline().split()[0]] = connection
    delta = TableDelta(network_id=NET, from_version=1, version=2, upsert_endpoints=(endpoint(12, second, ready=False),))
    assert first.call("apply_delta", delta) is True
    assert {first.visit("c10", lambda: ask(VIP))[0] for _ in range(6)} == {"c10", "c11"}
    assert addresses(resolve(first, "c10", "tasks.web")) == {"10.0.1.10", "10.0.1.11"}
    old = held["c12"]
    assert echo(old) == b"c12\n"

    assert first.call("apply_delta", TableDelta(network_id=NET, from_version=2, version=3, remove_endpoints=("t12",)))
    with pytest.raises(ConnectionResetError):
        echo(old)
    for connection in held.values():
        connection.close()


def test_a_vip_without_backends_refuses_at_once(web: Lab) -> None:
    first, second = web.hosts
    nobody = [endpoint(number, host, ready=False) for number, host in ((10, first), (11, first), (12, second))]
    first.call("apply_table", web_table(*nobody, version=2))
    with pytest.raises(ConnectionRefusedError):
        first.visit("c10", lambda: ask(VIP))
    with pytest.raises(PermissionError):  # what the kernel says to a sender whose packet it refuses itself
        first.visit("c10", lambda: ask_udp(VIP))


def test_a_gap_in_versions_asks_for_the_full_state(web: Lab) -> None:
    first, _second = web.hosts
    assert first.call("apply_delta", TableDelta(network_id=NET, from_version=7, version=8)) is False
    assert first.call("apply_delta", TableDelta(network_id="unknown", from_version=1, version=2)) is False


def test_egress_is_masqueraded_as_the_host(web: Lab) -> None:
    first, _second = web.hosts
    web.serve(web.outside, "outside", 8000)
    assert first.visit("c10", lambda: ask("192.0.2.250", 8000)) == ["outside", first.address]


INGRESS = "ingress"


def ingress_table(lab: Lab) -> NetworkTable:
    first, second = lab.hosts
    nodes = (("n1", "10.9.0.2", first), ("n2", "10.9.0.3", second))
    tasks = (("t10", "10.9.0.10", first), ("t12", "10.9.0.12", second))
    return NetworkTable(
        network_id=INGRESS,
        name="ingress",
        vni=4096,
        subnets=("10.9.0.0/24",),
        ingress=True,
        version=1,
        endpoints=tuple(
            EndpointRecord(endpoint_id=key, name=key, addresses=(address,), node_address=host.address)
            for key, address, host in (*nodes, *tasks)
        ),
    )


def ingress_box(number: int) -> Sandbox:
    on_ingress = Attachment(network_id=INGRESS, endpoint_id=f"t{number}", addresses=(f"10.9.0.{number}/24",))
    return box(number, attachments=(on_ingress, box(number).attachments[0]))


@pytest.fixture
def published(lab: Lab) -> Lab:
    """c10 on the first host and c12 on the second answer at port 8080 of both."""
    first, second = lab.hosts
    table = web_table(endpoint(10, first), endpoint(12, second))
    for host in lab.hosts:
        host.call("apply_table", table)
        host.call("apply_table", ingress_table(lab))
    first.call("attach", ingress_box(10))
    second.call("attach", ingress_box(12))
    port = IngressPort(
        published_port=8080,
        target_port=80,
        service_id="svc-web",
        backends=(
            IngressBackend(endpoint_id="t10", ingress_addresses=("10.9.0.10",), node_address=first.address),
            IngressBackend(endpoint_id="t12", ingress_addresses=("10.9.0.12",), node_address=second.address),
        ),
    )
    first.call("set_ingress", ["10.9.0.2/24"], [port])
    second.call("set_ingress", ["10.9.0.3/24"], [port])
    lab.serve(first.netns("c10"), "c10")
    lab.serve(second.netns("c12"), "c12")
    return lab


def test_ingress_answers_on_every_host_from_outside(published: Lab) -> None:
    for host in published.hosts:
        answers = dict(visit(published.outside, lambda address=host.address: ask(address, 8080)) for _ in range(4))
        assert set(answers) == {"c10", "c12"}
    seen = dict(visit(published.outside, lambda: ask(published.hosts[0].address, 8080)) for _ in range(2))
    assert seen == {"c10": "192.0.2.250", "c12": "10.9.0.2"}


def test_ingress_answers_on_localhost_and_from_containers(published: Lab) -> None:
    first, second = published.hosts
    for host in published.hosts:
        assert {host.visit(None, lambda: ask("127.0.0.1", 8080))[0] for _ in range(4)} == {"c10", "c12"}
        assert {host.visit(None, lambda host=host: ask(host.address, 8080))[0] for _ in range(4)} == {"c10", "c12"}
    assert {first.visit("c10", lambda: ask(first.address, 8080))[0] for _ in range(4)} == {"c10", "c12"}
    assert {first.visit("c10", lambda: ask(second.address, 8080))[0] for _ in range(4)} == {"c10", "c12"}


def test_ingress_without_a_task_that_is_gone(published: Lab) -> None:
    first, _second = published.hosts
    held = {}
    for _ in range(2):
        connection = visit(published.outside, lambda: socket.create_connection((first.address, 8080), timeout=5))
        held[connection.makefile().readline().split()[0]] = connection
    here = IngressBackend(endpoint_id="t10", ingress_addresses=("10.9.0.10",), node_address=first.address)
    port = IngressPort(published_port=8080, target_port=80, service_id="svc-web", backends=(here,))
    first.call("set_ingress", ["10.9.0.2/24"], [port])
    assert {visit(published.outside, lambda: ask(first.address, 8080))[0] for _ in range(4)} == {"c10"}
    assert echo(held["c12"]) == b"c12\n"
    first.call("apply_delta", TableDelta(network_id=INGRESS, from_version=1, version=2, remove_endpoints=("t12",)))
    with pytest.raises(ConnectionResetError):
        echo(held["c12"])
    assert echo(held["c10"]) == b"c10\n"
    first.call("set_ingress", ["10.9.0.2/24"], [])
    with pytest.raises(ConnectionRefusedError):
        visit(published.outside, lambda: ask(first.address, 8080))
    for connection in held.values():
        connection.close()


def test_policy_local_uses_only_local_tasks_and_keeps_the_clients_address(published: Lab) -> None:
    first, second = published.hosts
    backends = (
        IngressBackend(endpoint_id="t10", ingress_addresses=("10.9.0.10",), node_address=first.address),
        IngressBackend(endpoint_id="t12", ingress_addresses=("10.9.0.12",), node_address=second.address),
    )
    port = IngressPort(published_port=8080, target_port=80, service_id="s", backends=backends, policy="local")
    first.call("set_ingress", ["10.9.0.2/24"], [port])
    answers = {tuple(visit(published.outside, lambda: ask(first.address, 8080))) for _ in range(4)}
    assert answers == {("c10", "192.0.2.250")}


def test_published_ports_survive_a_daemon(published: Lab) -> None:
    first, _second = published.hosts

    def answering() -> set[str]:
        return {visit(published.outside, lambda: ask(first.address, 8080))[0] for _ in range(4)}

    first.kill()
    assert answering() == {"c10", "c12"}
    first.start()
    assert answering() == {"c10", "c12"}
    assert first.call("verify") == []


def test_a_port_that_is_taken_is_named_and_the_others_work(published: Lab) -> None:
    first, _second = published.hosts
    taken = first.visit(None, lambda: socket.create_server(("0.0.0.0", 9999)))
    ports = [
        IngressPort(
            published_port=number,
            target_port=80,
            service_id="svc-web",
            backends=(IngressBackend(endpoint_id="t10", ingress_addresses=("10.9.0.10",), node_address=first.address),),
        )
        for number in (9999, 8081)
    ]
    with taken, pytest.raises(Refused, match="9999/tcp is already allocated"):
        first.call("set_ingress", ["10.9.0.2/24"], ports)
    assert first.visit(None, lambda: ask("127.0.0.1", 8081))[0] == "c10"


def test_host_mode_ports(lab: Lab) -> None:
    first, _second = lab.hosts
    first.call("apply_table", web_table(endpoint(10, first)))
    first.call("attach", box(10, host_ports=(HostPort(published=8088, target=80),)))
    lab.serve(first.netns("c10"), "c10")
    assert visit(lab.outside, lambda: ask(first.address, 8088)) == ["c10", "192.0.2.250"]
    assert first.visit(None, lambda: ask("127.0.0.1", 8088))[0] == "c10"
    with pytest.raises(Refused, match=r"Bind for 0.0.0.0:8088 failed: port is already allocated"):
        first.call("attach", box(11, host_ports=(HostPort(published=8088, target=80),)))
    assert first.call("sandboxes") == ["c10"]
    first.call("detach", "c10")
    with pytest.raises(ConnectionRefusedError):
        visit(lab.outside, lambda: ask(first.address, 8088))
