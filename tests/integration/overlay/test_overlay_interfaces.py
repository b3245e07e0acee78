"""The interfaces of sandboxes are on the network's tunnel device itself: what goes with it, and what stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from overlay_lab import Host, Lab, Server, ask, lab_of

from pyswarm_overlay import Attachment, EndpointRecord, NetworkTable, Sandbox

pytestmark = pytest.mark.root

NET = "web"
LOCAL = range(10, 22)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Lab]:
    with lab_of(tmp_path, hosts=1) as lab:
        lab.hosts[0].start()
        lab.hosts[0].call("apply_table", table(lab.hosts[0].address, 1))
        yield lab


def given(number: int) -> tuple[str, str]:
    return f"10.0.1.{number}", f"fd00:1::{number:x}"


def table(node: str, version: int) -> NetworkTable:
    endpoints = tuple(
        EndpointRecord(endpoint_id=f"t{number}", name=f"w.{number}", addresses=given(number), node_address=node)
        for number in LOCAL
    )
    subnets = ("10.0.1.0/24", "fd00:1::/64")
    return NetworkTable(network_id=NET, name=NET, vni=4097, subnets=subnets, version=version, endpoints=endpoints)


def box(number: int, name: str = "") -> Sandbox:
    ipv4, ipv6 = given(number)
    attachment = Attachment(network_id=NET, endpoint_id=f"t{number}", addresses=(f"{ipv4}/24", f"{ipv6}/64"))
    return Sandbox(sandbox_id=name or f"c{number}", attachments=(attachment,), egress=False)


def interface(host: Host, name: str) -> dict[str, Any]:
    (found,) = json.loads(host.run("ip", "-j", "-d", "link", "show", "eth0", netns=host.netns(name)))
    return dict(found)


def test_many_on_one_host_reach_one_another_in_both_families(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(number) for number in LOCAL])
    for number in LOCAL:
        one.serve(host.netns(f"c{number}"), f"c{number}")
    for number in LOCAL:
        for other in LOCAL:
            ipv4, ipv6 = given(other)
            assert host.visit(f"c{number}", partial(ask, ipv4))[0] == f"c{other}"
            host.run("ping", "-6", "-c", "1", "-W", "5", ipv6, netns=host.netns(f"c{number}"))
    assert interface(host, "c10")["linkinfo"]["info_kind"] == "macvlan"


def test_an_address_passes_at_once_to_the_next_sandbox(one: Lab) -> None:
    """The kernel takes the namespace of the one before down in its own time, and the MAC follows from the address."""
    host = one.hosts[0]
    host.call("attach", box(11))
    for turn in range(6):
        host.call("attach", box(10, f"turn{turn}"))
        server = Server(host.netns(f"turn{turn}"), f"turn{turn}", 80)
        try:
            assert host.visit("c11", lambda: ask("10.0.1.10"))[0] == f"turn{turn}"
        finally:
            server.close()  # an open socket keeps a namespace
        host.call("detach", f"turn{turn}")
    assert host.call("verify") == []


def test_another_node_address_is_given_to_the_tunnel_that_is_there(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(10), box(11)])
    one.serve(host.netns("c11"), "c11")
    before = interface(host, "c10")["ifindex"]
    host.kill()
    host.run("ip", "address", "add", "192.0.2.77/24", "dev", "eth0")
    host.config = msgspec.structs.replace(host.config, node_address="192.0.2.77")
    host.start()
    host.call("apply_table", table("192.0.2.77", 2))
    (tunnel,) = json.loads(host.run("ip", "-j", "-d", "link", "show", "vxlan0", netns=host.overlay_netns(NET)))
    assert tunnel["linkinfo"]["info_data"]["local"] == "192.0.2.77"
    assert interface(host, "c10")["ifindex"] == before
    assert host.visit("c10", lambda: ask("10.0.1.11"))[0] == "c11"
    assert host.call("verify") == []


def test_without_its_tunnel_every_interface_is_made_anew(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(number) for number in LOCAL])
    host.run("ip", "link", "del", "vxlan0", netns=host.overlay_netns(NET))
    assert any("vxlan0" in problem for problem in host.call("verify"))
    one.serve(host.netns("c21"), "c21")
    for number in LOCAL:
        assert host.visit(f"c{number}", lambda: ask("10.0.1.21"))[0] == "c21"
    assert host.call("verify") == []
