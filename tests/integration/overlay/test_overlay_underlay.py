"""What carries the overlay: IPv6, another port, another interface, other and changing MTUs, on a real kernel."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from overlay_lab import TIMEOUT, Host, Lab, ask, lab_of, visit

from pyswarm_overlay import Attachment, EndpointRecord, NetworkTable, Sandbox

pytestmark = pytest.mark.root

NET = "net1"
LARGE = 8 << 20


def table(hosts: list[Host], version: int = 1, **changes: Any) -> NetworkTable:
    """One endpoint per host: 10.0.1.10 and so on."""
    endpoints = tuple(
        EndpointRecord(
            endpoint_id=f"t{number}",
            name=f"web.{number}",
            addresses=(f"10.0.1.{number}",),
            node_address=host.config.node_address,
        )
        for number, host in enumerate(hosts, 10)
    )
    settings: dict[str, Any] = {"network_id": NET, "name": "web", "vni": 4097, "subnets": ("10.0.1.0/24",)}
    return NetworkTable(**{**settings, "version": version, "endpoints": endpoints, **changes})


def box(number: int) -> Sandbox:
    attachment = Attachment(network_id=NET, endpoint_id=f"t{number}", addresses=(f"10.0.1.{number}/24",))
    return Sandbox(sandbox_id=f"c{number}", hostname=f"c{number}", attachments=(attachment,), egress=False)


def bring_up(lab: Lab, **changes: Any) -> None:
    for number, host in enumerate(lab.hosts, 10):
        host.start()
        host.call("apply_table", table(lab.hosts, **changes))
        host.call("attach", box(number))


def mtu_of(host: Host, sandbox: str = "", device: str = "eth0") -> int:
    where = host.netns(sandbox) if sandbox else host.overlay_netns(NET)
    return int(json.loads(host.run("ip", "-j", "link", "show", device, netns=where))[0]["mtu"])


def largest_ping(host: Host, sandbox: str, to: str, mtu: int) -> bool:
    """Whether a packet of exactly that size gets through in one piece."""
    command = ("ping", "-c1", "-W2", "-Mdo", "-s", str(mtu - 28), to)
    return "1 received" in host.run(*command, netns=host.netns(sandbox))


def sent_through(source: Host, source_box: str, target: Host, target_box: str, to: str) -> int:
    """Bytes of a large transfer that arrived."""
    server = visit(target.netns(target_box), lambda: socket.create_server(("0.0.0.0", 5001)))
    server.settimeout(TIMEOUT)
    arrived = [0]

    def receive() -> None:
        connection, _ = server.accept()
        connection.settimeout(TIMEOUT)
        with connection:
            while data := connection.recv(1 << 16):
                arrived[0] += len(data)

    def send() -> None:
        with socket.create_connection((to, 5001), timeout=TIMEOUT) as connection:
            connection.sendall(bytes(LARGE))

    reader = threading.Thread(target=receive)
    reader.start()
    try:
        visit(source.netns(source_box), send)
    finally:
        reader.join()
        server.close()
    return arrived[0]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Lab]:
    with lab_of(tmp_path, hosts=2) as made:
        yield made


def test_an_underlay_of_ipv6_alone_with_another_port(pair: Lab) -> None:
    for number, host in enumerate(pair.hosts, 1):
        host.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
        host.run("ip", "address", "add", f"fd00::{number}/64", "dev", "eth0", "nodad")
        host.config = msgspec.structs.replace(host.config, node_address=f"fd00::{number}", data_path_port=7789)
    bring_up(pair)
    first, second = pair.hosts
    pair.serve(second.netns("c11"), "c11")
    assert first.visit("c10", lambda: ask("10.0.1.11")) == ["c11", "10.0.1.10"]
    assert mtu_of(first, "c10") == 1500 - 70
    assert largest_ping(first, "c10", "10.0.1.11", 1430)
    assert sent_through(first, "c10", second, "c11", "10.0.1.11") == LARGE
    assert "7789" in first.run("ss", "-Huln")
    assert "4789" not in first.run("ss", "-Huln")
    assert first.call("verify") == []


def test_the_data_path_has_an_interface_of_its_own(pair: Lab) -> None:
    for number, host in enumerate(pair.hosts, 1):
        pair._ip("link", "add", f"d{number}", "type", "veth", "peer", "name", "eth1", "netns", str(host.pid))
        pair._ip("link", "set", f"d{number}", "master", "sw0", "up")
        host.run("ip", "address", "add", f"198.51.100.{number}/24", "dev", "eth1")
        host.run("ip", "link", "set", "eth1", "up")
        host.config = msgspec.structs.replace(host.config, node_address=f"198.51.100.{number}")
    bring_up(pair)
    first, second = pair.hosts
    for host in pair.hosts:
        host.run("ip", "link", "set", "eth0", "down")
    pair.serve(second.netns("c11"), "c11")
    assert first.visit("c10", lambda: ask("10.0.1.11")) == ["c11", "10.0.1.10"]


def test_the_mtu_follows_the_underlay_while_traffic_goes_on(pair: Lab) -> None:
    bring_up(pair)
    first, second = pair.hosts
    pair.serve(second.netns("c11"), "c11")
    held = first.visit("c10", lambda: socket.create_connection(("10.0.1.11", 80), timeout=TIMEOUT))
    with held:
        assert held.recv(100)
        for underlay in (1400, 9000):
            pair._ip("link", "set", "sw0", "mtu", "9000")
            for number, host in enumerate(pair.hosts, 1):
                pair._ip("link", "set", f"h{number}", "mtu", str(underlay))
                host.run("ip", "link", "set", "eth0", "mtu", str(underlay))
                assert host.call("follow_underlay") is True
                assert host.call("follow_underlay") is False
            overlay = underlay - 50
            assert mtu_of(first, device="vxlan0") == overlay
            assert (mtu_of(first, "c10"), mtu_of(second, "c11")) == (overlay, overlay)
            assert largest_ping(first, "c10", "10.0.1.11", overlay)
            assert sent_through(first, "c10", second, "c11", "10.0.1.11") == LARGE
            assert sent_through(second, "c11", first, "c10", "10.0.1.10") == LARGE
            held.sendall(b"still there?")
            assert held.recv(100)
            assert first.call("verify") == []


def test_the_route_to_a_peer_counts_and_the_networks_own_mtu_wins(pair: Lab) -> None:
    first, second = pair.hosts
    first.start()
    first.call("apply_table", table([first]))
    first.call("attach", box(10))
    assert mtu_of(first, "c10") == 1450
    first.run("ip", "route", "add", second.address, "dev", "eth0", "mtu", "1350")
    first.call("apply_table", table([first, second], version=2))  # a node that was not known
    assert mtu_of(first, "c10") == 1300
    own = NetworkTable(network_id="net2", name="own", vni=4098, subnets=("10.0.2.0/24",), mtu=1200)
    first.call("apply_table", own)
    place = Attachment(network_id="net2", endpoint_id="t20", addresses=("10.0.2.20/24",))
    first.call("attach", Sandbox(sandbox_id="c20", attachments=(place,), egress=False))
    first.run("ip", "link", "set", "eth0", "mtu", "1280")
    assert first.call("follow_underlay") is True
    assert (mtu_of(first, "c10"), mtu_of(first, "c20")) == (1230, 1200)


def test_a_daemon_that_starts_again_finds_the_mtu_that_changed_meanwhile(pair: Lab) -> None:
    bring_up(pair)
    first, _second = pair.hosts
    first.kill()
    first.run("ip", "link", "set", "eth0", "mtu", "1400")
    first.start()
    assert mtu_of(first, "c10") == 1350
    assert mtu_of(first, device="vxlan0") == 1350
    assert first.call("verify") == []


def test_a_peer_of_the_other_family_harms_nobody_else(pair: Lab) -> None:
    bring_up(pair)
    first, second = pair.hosts
    stranger = EndpointRecord(endpoint_id="t99", name="web.99", addresses=("10.0.1.99",), node_address="fd00::9")
    changed = table(pair.hosts, version=2)
    first.call("apply_table", msgspec.structs.replace(changed, endpoints=(*changed.endpoints, stranger)))
    pair.serve(second.netns("c11"), "c11")
    assert first.visit("c10", lambda: ask("10.0.1.11")) == ["c11", "10.0.1.10"]
    assert first.call("verify") == []
