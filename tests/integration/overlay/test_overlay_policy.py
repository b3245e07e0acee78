"""Network policy on a real kernel: who may connect, what changes while connections live, and what heals."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from overlay_lab import TIMEOUT, Host, Lab, Server, ask, ask_udp, visit

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

NET, INGRESS = "net1", "ing1"
DB, DB_ELSEWHERE, WEB, OTHER = 10, 11, 20, 30
SERVICES = {DB: "db", DB_ELSEWHERE: "db", WEB: "web", OTHER: "other"}
VIP = "10.0.1.2"
TABLE = ("inet", "ps_policy")


def endpoint(number: int, host: Host, net: int = 1) -> EndpointRecord:
    name = SERVICES[number]
    return EndpointRecord(
        endpoint_id=f"t{number}",
        name=f"{name}.{number}",
        addresses=(f"10.0.{net}.{number}",),
        node_address=host.address,
        service_id=f"svc-{name}",
        ready=True,
    )


def service(name: str, *allow_from: str, vips: tuple[str, ...] = ()) -> ServiceRecord:
    return ServiceRecord(service_id=f"svc-{name}", name=name, allow_from=allow_from, vips=vips)


def table(lab: Lab, *allow_from: str, version: int = 1) -> NetworkTable:
    first, second = lab.hosts
    return NetworkTable(
        network_id=NET,
        name="back",
        vni=4097,
        subnets=("10.0.1.0/24",),
        version=version,
        endpoints=(
            endpoint(DB, first),
            endpoint(DB_ELSEWHERE, second),
            endpoint(WEB, second),
            endpoint(OTHER, first),
        ),
        services=(service("db", *allow_from, vips=(VIP,)), service("web"), service("other")),
    )


def box(number: int, **changes: Any) -> Sandbox:
    attachment = Attachment(network_id=NET, endpoint_id=f"t{number}", addresses=(f"10.0.1.{number}/24",))
    settings: dict[str, Any] = {"sandbox_id": f"c{number}", "attachments": (attachment,)}
    return Sandbox(**{**settings, **changes})


@pytest.fixture
def start(lab: Lab) -> Callable[..., Server]:
    """The database on both hosts, web on the second and other on the first, with db's `allow_from`."""

    def begin(*allow_from: str) -> Server:
        first, second = lab.hosts
        for host in lab.hosts:
            host.call("apply_table", table(lab, *allow_from))
        first.call("attach_all", [box(DB), box(OTHER)])
        second.call("attach_all", [box(DB_ELSEWHERE), box(WEB)])
        lab.serve(second.netns(f"c{DB_ELSEWHERE}"), f"c{DB_ELSEWHERE}")
        return lab.serve(first.netns(f"c{DB}"), f"c{DB}")

    return begin


def set_policy(lab: Lab, *allow_from: str, version: int) -> None:
    delta = TableDelta(
        network_id=NET,
        from_version=version - 1,
        version=version,
        upsert_services=(service("db", *allow_from, vips=(VIP,)),),
    )
    for host in lab.hosts:
        assert host.call("apply_delta", delta)


def has_table(host: Host, number: int) -> bool:
    return "ps_policy" in host.run("nft", "list", "tables", netns=host.netns(f"c{number}"))


def test_only_named_services_connect_and_others_are_refused_at_once(lab: Lab, start: Callable[..., Server]) -> None:
    start("web")
    first, second = lab.hosts
    for address in (f"10.0.1.{DB}", VIP):
        assert second.visit(f"c{WEB}", lambda target=address: ask(target))[1] == f"10.0.1.{WEB}"
        assert second.visit(f"c{WEB}", lambda target=address: ask_udp(target))[1] == f"10.0.1.{WEB}"
        with pytest.raises(ConnectionRefusedError):
            first.visit(f"c{OTHER}", lambda target=address: ask(target))
    with pytest.raises(OSError, match="No route to host"):  # what Linux makes of "administratively prohibited"
        first.visit(f"c{OTHER}", lambda: ask_udp(f"10.0.1.{DB}"))
    with pytest.raises(ConnectionRefusedError):
        first.visit(None, lambda: ask(first_way_in(first, DB)))
    assert first.visit(f"c{DB}", lambda: ask(f"10.0.1.{DB}")) == [f"c{DB}", f"10.0.1.{DB}"]
    refused = first.run("nft", "list", "counters", "table", *TABLE, netns=first.netns(f"c{DB}"))
    assert "packets 0 " not in refused
    assert not has_table(first, OTHER)
    assert not has_table(second, WEB)


def first_way_in(host: Host, number: int) -> str:
    """The address at which the sandbox is reached from its host."""
    text = host.run("ip", "-o", "-4", "address", netns=host.netns(f"c{number}"))
    return next(word for word in text.split() if word.startswith("172.")).partition("/")[0]


def test_what_a_sandbox_opens_itself_is_answered(lab: Lab, start: Callable[..., Server]) -> None:
    start("none")
    first, second = lab.hosts
    lab.serve(second.netns(f"c{WEB}"), f"c{WEB}")
    lab.serve(lab.outside, "world", 8080)
    assert first.visit(f"c{DB}", lambda: ask(f"10.0.1.{WEB}")) == [f"c{WEB}", f"10.0.1.{DB}"]
    assert first.visit(f"c{DB}", lambda: ask_udp(f"10.0.1.{WEB}"))[0] == f"c{WEB}"
    assert first.visit(f"c{DB}", lambda: ask("192.0.2.250", 8080))[0] == "world"
    with pytest.raises(ConnectionRefusedError):
        second.visit(f"c{WEB}", lambda: ask(f"10.0.1.{DB}"))


def test_a_source_that_loses_permission_is_cut_and_a_new_one_is_let_in(lab: Lab, start: Callable[..., Server]) -> None:
    start()
    first, second = lab.hosts
    idle, busy, kept = (
        host.visit(f"c{number}", lambda: socket.create_connection((VIP, 80), timeout=TIMEOUT))
        for host, number in ((first, OTHER), (first, OTHER), (second, WEB))
    )
    with idle, busy, kept:
        assert idle.recv(100)
        assert busy.recv(100)
        assert kept.recv(100)
        set_policy(lab, "web", version=2)
        with pytest.raises(ConnectionResetError):
            idle.recv(100)  # without a word from either side
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            busy.sendall(b"still there?")
        kept.sendall(b"still there?")
        assert kept.recv(100)
    assert second.visit(f"c{WEB}", lambda: ask(VIP))
    set_policy(lab, "web", "other", version=3)
    assert first.visit(f"c{OTHER}", lambda: ask(VIP))
    newcomer = EndpointRecord(
        endpoint_id="t31",
        name="other.31",
        addresses=("10.0.1.31",),
        node_address=second.address,
        service_id="svc-other",
    )
    for host in lab.hosts:
        assert host.call(
            "apply_delta",
            TableDelta(
                network_id=NET, from_version=3, version=4, upsert_endpoints=(newcomer,), remove_endpoints=("t30",)
            ),
        )
    attachment = Attachment(network_id=NET, endpoint_id="t31", addresses=("10.0.1.31/24",))
    second.call("attach", box(31, attachments=(attachment,)))
    assert second.visit("c31", lambda: ask(f"10.0.1.{DB}"))
    with pytest.raises(ConnectionRefusedError):
        first.visit(f"c{OTHER}", lambda: ask(f"10.0.1.{DB}"))
    set_policy(lab, version=5)
    assert first.visit(f"c{OTHER}", lambda: ask(f"10.0.1.{DB}"))
    assert not has_table(first, DB)


def test_tasks_of_a_removed_service_keep_its_policy(lab: Lab, start: Callable[..., Server]) -> None:
    start("web")
    first = lab.hosts[0]
    first.call("attach", box(DB, service_id="svc-db"))
    gone = TableDelta(
        network_id=NET, from_version=1, version=2, remove_services=("svc-db",), remove_endpoints=(f"t{DB}",)
    )
    assert first.call("apply_delta", gone)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            first.visit(f"c{OTHER}", lambda: ask(f"10.0.1.{DB}"))
        assert has_table(first, DB)
        first.kill()
        first.start()


def test_both_families_are_let_in_or_refused(lab: Lab) -> None:
    first = lab.hosts[0]
    numbers = (DB, WEB, OTHER)
    six = {number: f"fd00:1::{number}" for number in numbers}
    records = [replace(endpoint(n, first), addresses=(f"10.0.1.{n}", six[n])) for n in numbers]
    subnets = ("10.0.1.0/24", "fd00:1::/64")
    first.call("apply_table", replace(table(lab, "web"), endpoints=tuple(records), subnets=subnets))
    for number in numbers:
        places = (f"10.0.1.{number}/24", f"{six[number]}/64")
        first.call(
            "attach", box(number, attachments=(Attachment(network_id=NET, endpoint_id=f"t{number}", addresses=places),))
        )
    listener = first.visit(f"c{DB}", lambda: socket.create_server(("::", 80), family=socket.AF_INET6))
    with listener:
        first.visit(f"c{WEB}", lambda: socket.create_connection((six[DB], 80), timeout=TIMEOUT).close())
        with pytest.raises(ConnectionRefusedError):
            first.visit(f"c{OTHER}", lambda: socket.create_connection((six[DB], 80), timeout=TIMEOUT))


def test_what_somebody_changed_is_written_again_and_a_restart_keeps_it(lab: Lab, start: Callable[..., Server]) -> None:
    start("web")
    first, _second = lab.hosts
    inside = first.netns(f"c{DB}")
    assert first.call("verify") == []
    for damage in (
        ("flush", "table", *TABLE),
        ("delete", "table", *TABLE),
        ("insert", "rule", *TABLE, "input", "accept"),
        ("flush", "set", *TABLE, "from4"),
        ("add", "element", *TABLE, "from4", "{ eth0 . 10.0.1.30 }"),
    ):
        first.run("nft", *damage, netns=inside)
        found = first.call("verify")
        assert any("policy" in line for line in found), (damage, found)
        assert first.call("verify") == []
        with pytest.raises(ConnectionRefusedError):
            first.visit(f"c{OTHER}", lambda: ask(f"10.0.1.{DB}"))
    first.kill()
    with pytest.raises(ConnectionRefusedError):
        first.visit(f"c{OTHER}", lambda: ask(f"10.0.1.{DB}"))
    first.start()
    assert first.call("verify") == []
    with pytest.raises(ConnectionRefusedError):
        first.visit(f"c{OTHER}", lambda: ask(f"10.0.1.{DB}"))


def publish(lab: Lab, *allow_from: str, version: int) -> None:
    """db at port 8080 of every host, served by its task on the first host."""
    first, second = lab.hosts
    nodes = [
        EndpointRecord(endpoint_id=f"node{number}", name="", addresses=(f"10.0.9.{number}",), node_address=host.address)
        for number, host in enumerate(lab.hosts, 101)
    ]
    ingress = NetworkTable(
        network_id=INGRESS,
        name="ingress",
        vni=4098,
        subnets=("10.0.9.0/24",),
        ingress=True,
        version=version,
        endpoints=(endpoint(DB, first, net=9), *nodes),
        services=(service("db", *allow_from),),
    )
    backend = IngressBackend(endpoint_id=f"t{DB}", ingress_addresses=(f"10.0.9.{DB}",), node_address=first.address)
    port = IngressPort(published_port=8080, target_port=80, service_id="svc-db", backends=(backend,))
    for number, host in enumerate((first, second), 101):
        host.call("apply_table", ingress)
        host.call("set_ingress", [f"10.0.9.{number}/24"], [port])


def test_published_ports_are_let_in_by_ingress_only(lab: Lab, start: Callable[..., Server]) -> None:
    start("web")
    first, second = lab.hosts
    publish(lab, "web", version=1)
    inside = Attachment(network_id=NET, endpoint_id=f"t{DB}", addresses=(f"10.0.1.{DB}/24",))
    ingress = Attachment(network_id=INGRESS, endpoint_id=f"t{DB}", addresses=(f"10.0.9.{DB}/24",))
    port = HostPort(published=9090, target=80)
    first.call("attach", box(DB, attachments=(inside, ingress), host_ports=(port,)))

    def answers(address: str, port: int) -> bool:
        try:
            return bool(visit(lab.outside, lambda: ask(address, port)))
        except ConnectionRefusedError:
            return False

    places = [(first.address, 8080), (second.address, 8080), (first.address, 9090)]
    assert [answers(*place) for place in places] == [False, False, False]
    set_policy(lab, "web", "ingress", version=2)
    publish(lab, "web", "ingress", version=2)
    assert [answers(*place) for place in places] == [True, True, True]
    with pytest.raises(ConnectionRefusedError):
        first.visit(f"c{OTHER}", lambda: ask(f"10.0.1.{DB}"))
