"""Ways out have IPv6 once the host has: those that exist are completed while they are used, on a real kernel."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay_lab import TIMEOUT, Host, Lab, lab_of, visit

from pyswarm_overlay import HostPort, Sandbox

pytestmark = pytest.mark.root

HOST6, OUTSIDE6, PORT = "2001:db8::2", "2001:db8::fa", 8080
ANY = "::"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with lab_of(tmp_path, hosts=1) as made:
        yield made


def box(name: str, *ports: HostPort) -> Sandbox:
    return Sandbox(sandbox_id=name, hostname=name, attachments=(), host_ports=ports)


def has_ipv6(host: Host, name: str) -> bool:
    found = json.loads(host.run("ip", "-j", "-6", "address", "show", "dev", "eth0", netns=host.netns(name)))
    return any(one["scope"] == "global" for link in found for one in link.get("addr_info", ()))


def give_ipv6(lab: Lab) -> None:
    host = lab.hosts[0]
    host.run("ip", "address", "add", f"{OUTSIDE6}/64", "dev", "sw0", "nodad", netns=lab.outside)
    host.run("ip", "address", "add", f"{HOST6}/64", "dev", "eth0", "nodad")


def client(server: socket.socket, lab: Lab, to: str) -> tuple[socket.socket, socket.socket, str]:
    """A connection from outside to the published port: both ends, and whom the server sees."""
    near = visit(lab.outside, lambda: socket.create_connection((to, PORT), timeout=TIMEOUT))
    far, address = server.accept()
    far.settimeout(TIMEOUT)
    return near, far, address[0]


@pytest.mark.parametrize("told", ["follow_underlay", "verify"])
def test_a_host_that_gains_ipv6(lab: Lab, told: str) -> None:
    """Connections go on; from then on clients come in IPv6, and keep their addresses."""
    host = lab.hosts[0]
    host.start()
    host.call("attach", box("c1", HostPort(published=PORT, target=80)))
    assert not has_ipv6(host, "c1")
    server = host.visit("c1", lambda: socket.create_server((ANY, 80), family=socket.AF_INET6, dualstack_ipv6=True))
    with server:
        server.settimeout(TIMEOUT)
        near, far, seen = client(server, lab, host.address)
        assert seen == "::ffff:192.0.2.250"
        give_ipv6(lab)
        host.call(told)
        assert has_ipv6(host, "c1")
        with near, far:
            near.sendall(b"still here")
            assert far.recv(16) == b"still here"
        near, far, seen = client(server, lab, HOST6)
        with near, far:
            assert seen == OUTSIDE6
    host.call("attach", box("c2"))
    assert has_ipv6(host, "c2")
    assert host.call("verify") == []
    host.kill()
    host.start()
    assert host.call("verify") == []
    assert has_ipv6(host, "c1")
