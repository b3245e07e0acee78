"""Macvlan networks: containers with addresses of their own on the network of a host's interface.

The parent is the host's eth0, a veth whose other end is the lab's switch in another namespace; the switch stands for a
machine on that network.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from overlay_lab import Host, Lab, Refused, ask, lab_of, visit
from test_overlay_kernel import addresses, resolve

from pyswarm_common import network_options as options
from pyswarm_overlay import Attachment, EndpointRecord, HostPort, NetworkTable, Sandbox, ServiceRecord
from pyswarm_overlay.drivers.configs import ConfigNetwork, Configs

pytestmark = pytest.mark.root

VIP = "192.0.2.200"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Two hosts, their daemons running."""
    with lab_of(tmp_path, hosts=2) as made:
        for host in made.hosts:
            host.start()
        yield made


def network(lab: Lab, *, mode: str = "bridge", parent: str = "eth0", **changes: Any) -> NetworkTable:
    """c101 is on the first host, c102 on the second, c103 on the first: the service `printers`."""
    first, second = lab.hosts
    endpoints = tuple(
        EndpointRecord(
            endpoint_id=f"c{number}",
            name=f"printers.{number}",
            hostname=f"c{number}",
            addresses=(f"192.0.2.{number}",),
            node_address=host.address,
            service_id="svc",
            ready=True,
        )
        for number, host in ((101, first), (102, second), (103, first))
    )
    given = {options.MACVLAN_MODE: mode, **({options.PARENT: parent} if parent else {})}
    settings: dict[str, Any] = {
        "network_id": "lan",
        "name": "lan",
        "vni": 0,
        "driver": "macvlan",
        "subnets": ("192.0.2.0/24",),
        "gateways": ("192.0.2.250",),
        "options": given,
        "endpoints": endpoints,
        "services": (ServiceRecord(service_id="svc", name="printers", vips=(VIP,)),),
    }
    return NetworkTable(**{**settings, **changes})


def on(number: int, **changes: Any) -> Sandbox:
    attachment = Attachment(network_id="lan", endpoint_id=f"c{number}", addresses=(f"192.0.2.{number}/24",))
    settings: dict[str, Any] = {"sandbox_id": f"c{number}", "hostname": f"c{number}", "attachments": (attachment,)}
    return Sandbox(**{**settings, **changes})


def start(lab: Lab, table: NetworkTable, *sandboxes: tuple[Host, Sandbox]) -> None:
    for host in lab.hosts:
        host.call("apply_table", table)
    for host, sandbox in sandboxes:
        host.call("attach", sandbox)
        lab.serve(host.netns(sandbox.sandbox_id), sandbox.sandbox_id)


def reaches(host: Host, sandbox: str, target: str, port: int = 80) -> bool:
    def attempt() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.7)
            return sock.connect_ex((target, port)) == 0

    return host.visit(sandbox, attempt)


def ask_as(source: str, target: str, port: int) -> list[str]:
    with socket.create_connection((target, port), timeout=5, source_address=(source, 0)) as connection:
        return connection.makefile().readline().split()


def test_containers_are_machines_of_the_parents_network(lab: Lab) -> None:
    first, second = lab.hosts
    start(lab, network(lab), (first, on(101)), (second, on(102)), (first, on(103)))
    world = lab.serve(lab.outside, "world", 81)
    assert first.visit("c101", lambda: ask("192.0.2.102")) == ["c102", "192.0.2.101"], "across hosts"
    assert first.visit("c101", lambda: ask("192.0.2.103")) == ["c103", "192.0.2.101"], "mode bridge, same parent"
    assert visit(lab.outside, lambda: ask("192.0.2.101"))[0] == "c101", "from a machine there"
    assert first.visit("c101", lambda: ask("192.0.2.250", 81)) == ["world", "192.0.2.101"]
    assert world.peers == ["192.0.2.101"]
    assert addresses(resolve(first, "c101", "c102")) == {"192.0.2.102"}, "names of the whole cluster"
    assert addresses(resolve(second, "c102", "printers")) == {VIP}
    assert {first.visit("c101", lambda: ask(VIP))[0] for _ in range(6)} == {"c101", "c102", "c103"}
    assert [host.call("verify") for host in lab.hosts] == [[], []]


def test_the_default_route_is_the_networks_own_gateway(lab: Lab) -> None:
    first, _second = lab.hosts
    start(lab, network(lab), (first, on(101)))
    lab._ip("address", "add", "198.51.100.1/32", "dev", "sw0")
    far = lab.serve(lab.outside, "far", 82)
    assert first.visit("c101", lambda: ask("198.51.100.1", 82)) == ["far", "192.0.2.101"]
    assert far.peers == ["192.0.2.101"]
    links = json.loads(first.run("ip", "-j", "link", netns=first.netns("c101")))
    assert {link["ifname"] for link in links} == {"lo", "eth0"}


def test_a_container_that_publishes_ports_goes_out_by_the_host(lab: Lab) -> None:
    first, _second = lab.hosts
    start(lab, network(lab), (first, on(101, host_ports=(HostPort(published=8080, target=80),))))
    lab._ip("address", "add", "198.51.100.1/32", "dev", "sw0")
    first.run("ip", "route", "add", "198.51.100.1", "via", "192.0.2.250")
    lab.serve(lab.outside, "far", 82)
    assert visit(lab.outside, lambda: ask_as("198.51.100.1", "192.0.2.1", 8080)) == ["c101", "198.51.100.1"]
    assert visit(lab.outside, lambda: ask("192.0.2.101"))[0] == "c101"
    assert first.visit("c101", lambda: ask("198.51.100.1", 82)) == ["far", "192.0.2.1"]


@pytest.mark.parametrize(("mode", "meets_neighbour"), [("private", False), ("vepa", False)])
def test_modes_that_keep_containers_of_one_parent_apart(lab: Lab, mode: str, meets_neighbour: bool) -> None:
    first, second = lab.hosts
    start(lab, network(lab, mode=mode), (first, on(101)), (first, on(103)), (second, on(102)))
    assert reaches(first, "c101", "192.0.2.103") is meets_neighbour
    assert reaches(first, "c101", "192.0.2.102"), "on another host's parent"
    details = first.run("ip", "-d", "link", "show", "eth0", netns=first.netns("c101"))
    assert f"mode {mode}" in details


def test_passthru_gives_the_parent_to_one_container(lab: Lab) -> None:
    first, _second = lab.hosts
    for command in (
        ("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1"),
        ("ip", "address", "add", "203.0.113.1/24", "dev", "lan1"),
        ("ip", "link", "set", "lan0", "up"),
        ("ip", "link", "set", "lan1", "up"),
    ):
        first.run(*command)
    table = network(lab, mode="passthru", parent="lan0", subnets=("203.0.113.0/24",), gateways=("203.0.113.1",))
    first.call("apply_table", table)
    attachment = Attachment(network_id="lan", endpoint_id="c101", addresses=("203.0.113.101/24",))
    first.call("attach", Sandbox(sandbox_id="c101", attachments=(attachment,)))
    lab.serve(first.netns("c101"), "c101")
    assert first.visit(None, lambda: ask("203.0.113.101"))[0] == "c101"
    [parent] = json.loads(first.run("ip", "-j", "link", "show", "lan0"))
    [inside] = json.loads(first.run("ip", "-j", "link", "show", "eth0", netns=first.netns("c101")))
    assert inside["address"] == parent["address"]
    assert first.call("verify") == []
    second = Attachment(network_id="lan", endpoint_id="c103", addresses=("203.0.113.103/24",))
    with pytest.raises(Refused, match="macvlan"):
        first.call("attach", Sandbox(sandbox_id="c103", attachments=(second,)))


def test_without_a_parent_the_containers_only_meet_each_other(lab: Lab) -> None:
    first, _second = lab.hosts
    start(lab, network(lab, parent=""), (first, on(101, egress=False)), (first, on(103, egress=False)))
    assert first.visit("c101", lambda: ask("192.0.2.103"))[0] == "c103"
    first.call("retain", [])
    assert not [link for link in json.loads(first.run("ip", "-j", "link")) if link["ifname"].startswith("ps-m")]


def test_a_parent_that_is_not_there_is_named(lab: Lab) -> None:
    first, _second = lab.hosts
    first.call("apply_table", network(lab, parent="eth7"))
    with pytest.raises(Refused, match="network lan: this node has no interface eth7"):
        first.call("attach", on(101))
    assert first.call("sandboxes") == []


def test_an_interface_that_was_removed_is_made_again(lab: Lab) -> None:
    first, _second = lab.hosts
    start(lab, network(lab, options={options.PARENT: "eth0", options.MTU: "1300"}), (first, on(101)), (first, on(103)))
    first.run("ip", "link", "delete", "eth0", netns=first.netns("c101"))
    assert any("eth0" in problem for problem in first.call("verify"))
    assert first.call("verify") == []
    assert reaches(first, "c101", "192.0.2.103")
    assert '"mtu":1300' in first.run("ip", "-j", "link", "show", "eth0", netns=first.netns("c101"))
    first.kill()
    first.start()
    assert first.call("verify") == []


def lend(host: Host, ip_range: str) -> None:
    """`network create --config-only` on that node."""
    config = ConfigNetwork(
        config_id="f" * 24,
        name="cfg",
        options={options.PARENT: "eth0"},
        subnets=("192.0.2.0/24",),
        gateways=("192.0.2.250",),
        ip_ranges=(ip_range,),
    )
    Configs(host.config.state_dir / "configs").add(config)


def test_each_node_lends_its_own_configuration(lab: Lab) -> None:
    """Ranges of the nodes keep their containers' addresses apart."""
    first, second = lab.hosts
    lend(first, "192.0.2.64/28")
    lend(second, "192.0.2.80/28")
    lent = network(lab, parent="", subnets=(), gateways=(), options={}, config_from="cfg")
    for host in lab.hosts:
        host.call("apply_table", lent)
    found = {}
    for host, task in ((first, "c101"), (second, "c102"), (first, "c103")):
        attachment = Attachment(network_id="lan", endpoint_id=task, addresses=())
        host.call("attach", Sandbox(sandbox_id=task, hostname=task, attachments=(attachment,)))
        lab.serve(host.netns(task), task)
        [found[task]] = addresses(resolve(host, task, task))
    assert found == {"c101": "192.0.2.64", "c102": "192.0.2.80", "c103": "192.0.2.65"}
    assert first.visit("c101", lambda: ask(found["c102"])) == ["c102", found["c101"]]
    assert addresses(resolve(first, "c101", "c103")) == {found["c103"]}
    assert addresses(resolve(first, "c101", "c102")) == set(), "another node's, which only that one knows"


def test_a_node_without_the_configuration_says_so(lab: Lab) -> None:
    first, _second = lab.hosts
    first.call("apply_table", network(lab, parent="", subnets=(), gateways=(), options={}, config_from="cfg"))
    with pytest.raises(Refused, match="configuration network cfg was not found on this node"):
        first.call(
            "attach",
            Sandbox(sandbox_id="c101", attachments=(Attachment(network_id="lan", endpoint_id="c101", addresses=()),)),
        )
