"""Bridge networks: containers of one host meet on a bridge of its own, with addresses that the host gives them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from overlay_lab import Host, Refused, ask, lab_of, visit
from test_overlay_kernel import addresses, resolve

from pyswarm_common import network_options as options
from pyswarm_overlay import Attachment, EndpointRecord, HostPort, NetworkTable, Sandbox, ServiceRecord

pytestmark = pytest.mark.root


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """One host; its daemon runs."""
    with lab_of(tmp_path, hosts=1) as lab:
        lab.hosts[0].start()
        yield lab.hosts[0]


def bridge(name: str, *tasks: str, **changes: Any) -> NetworkTable:
    """A bridge network on which the tasks are those of one service, named as the network is; `far` is elsewhere."""
    endpoints = tuple(
        EndpointRecord(
            endpoint_id=task,
            name=f"{name}.{task}",
            hostname=task,
            node_address="192.0.2.9" if task == "far" else "192.0.2.1",
            service_id=f"svc-{name}",
            ready=True,
        )
        for task in tasks
    )
    settings: dict[str, Any] = {"network_id": f"net-{name}", "name": name, "vni": 0, "subnets": (), "driver": "bridge"}
    services = (ServiceRecord(service_id=f"svc-{name}", name=name),)
    return NetworkTable(**{**settings, "endpoints": endpoints, "services": services, **changes})


def on(task: str, *networks: str, **changes: Any) -> Sandbox:
    attached = tuple(Attachment(network_id=f"net-{name}", endpoint_id=task, addresses=()) for name in networks)
    return Sandbox(sandbox_id=task, hostname=task, attachments=attached, **changes)


def address(host: Host, task: str, interface: str = "eth0") -> str:
    [link] = json.loads(host.run("ip", "-j", "-4", "address", "show", "dev", interface, netns=host.netns(task)))
    return str(link["addr_info"][0]["local"])


def links(host: Host) -> set[str]:
    return {link["ifname"] for link in json.loads(host.run("ip", "-j", "link"))}


@contextmanager
def serving(host: Host, *tasks: str) -> Iterator[None]:
    for task in tasks:
        host.lab.serve(host.netns(task), task)
    yield


def reaches(host: Host, task: str | None, target: str) -> bool:
    def attempt() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.7)
            return sock.connect_ex((target, 80)) == 0

    return host.visit(task, attempt)


def test_containers_meet_by_name_and_find_those_of_this_host_only(host: Host) -> None:
    host.call("apply_table", bridge("app", "a", "b", "far"))
    host.call("attach_all", [on("a", "app"), on("b", "app")])
    with serving(host, "a", "b"):
        assert address(host, "a") != address(host, "b")
        assert addresses(resolve(host, "a", "app")) == {address(host, "a"), address(host, "b")}
        assert addresses(resolve(host, "a", "b")) == {address(host, "b")}
        assert addresses(resolve(host, "a", "far")) == set()
        assert host.visit("a", lambda: ask(address(host, "b"))) == ["b", address(host, "a")]
        assert host.visit(None, lambda: ask(address(host, "b")))[0] == "b", "the host reaches its containers"
    assert host.call("verify") == []


def test_the_way_out_and_published_ports_are_as_on_any_network(host: Host) -> None:
    host.call("apply_table", bridge("app", "a"))
    host.call("attach", on("a", "app", host_ports=(HostPort(published=8080, target=80),)))
    outside = host.lab.serve(host.lab.outside, "world", 81)
    with serving(host, "a"):
        assert host.visit("a", lambda: ask("192.0.2.250", 81)) == ["world", "192.0.2.1"]
        client = host.lab.hosts[0]
        assert client.visit(None, lambda: ask("192.0.2.1", 8080))[0] == "a"
    assert outside.peers == ["192.0.2.1"]


def test_bridges_are_apart_and_a_network_may_keep_its_containers_apart(host: Host) -> None:
    host.call("apply_table", bridge("one", "a", "b", options={options.ENABLE_ICC: "false"}))
    host.call("apply_table", bridge("two", "c", "d"))
    host.call("attach_all", [on("a", "one"), on("b", "one"), on("c", "two"), on("d", "two")])
    with serving(host, "a", "b", "c", "d"):
        assert reaches(host, "c", address(host, "d"))
        assert not reaches(host, "a", address(host, "b")), "enable_icc=false"
        assert not reaches(host, "c", address(host, "a"))
        assert not reaches(host, "a", address(host, "c"))
        assert reaches(host, None, address(host, "a")), "the host is no container"
    one, two = (host.run("ip", "-j", "route", "get", address(host, task)) for task in ("a", "c"))
    assert json.loads(one)[0]["dev"] != json.loads(two)[0]["dev"]


def test_a_routed_bridge_shows_its_containers_own_addresses(host: Host) -> None:
    table = bridge(
        "lan",
        "a",
        subnets=("10.77.0.0/24",),
        gateways=("10.77.0.254",),
        ip_ranges=("10.77.0.128/25",),
        auxiliary_addresses={"printer": "10.77.0.129"},
        options={options.ENABLE_MASQUERADE: "false", options.BRIDGE_NAME: "br-lan", options.MTU: "1400"},
    )
    host.call("apply_table", table)
    host.call("apply_table", bridge("other", "c"))
    host.call("attach_all", [on("a", "lan", host_ports=(HostPort(published=8081, target=80),)), on("c", "other")])
    host.lab._ip("route", "add", "10.77.0.0/24", "via", "192.0.2.1")
    world = host.lab.serve(host.lab.outside, "world", 81)
    with serving(host, "a"):
        assert address(host, "a") == "10.77.0.128"
        assert host.visit("a", lambda: ask("192.0.2.250", 81)) == ["world", "10.77.0.128"]
        assert ask_from_outside(host, "10.77.0.128", 80)[0] == "a", "it is routed"
        assert ask_from_outside(host, "192.0.2.1", 8081)[0] == "a", "and published as well"
        assert not reaches(host, "c", "10.77.0.128"), "another network's containers stay out"
    assert world.peers == ["10.77.0.128"]
    assert "br-lan" in links(host)
    assert '"mtu":1400' in host.run("ip", "-j", "link", "show", "eth0", netns=host.netns("a"))
    assert host.call("verify") == []


def ask_from_outside(host: Host, target: str, port: int) -> list[str]:
    return visit(host.lab.outside, lambda: ask(target, port))


def test_ports_are_published_where_the_bridge_says(host: Host) -> None:
    host.call("apply_table", bridge("app", "a", options={options.HOST_BINDING: "127.0.0.1"}))
    host.call("attach", on("a", "app", host_ports=(HostPort(published=8082, target=80),)))
    with serving(host, "a"):
        assert host.visit(None, lambda: ask("127.0.0.1", 8082))[0] == "a"
        with pytest.raises(OSError):
            ask_from_outside(host, "192.0.2.1", 8082)


def test_an_internal_bridge_has_no_way_out(host: Host) -> None:
    host.call("apply_table", bridge("in", "a", "b", internal=True))
    host.call("attach_all", [on("a", "in", egress=False), on("b", "in", egress=False)])
    with serving(host, "a", "b"):
        assert reaches(host, "a", address(host, "b"))
        with pytest.raises(OSError, match="unreachable"):
            host.visit("a", lambda: ask("192.0.2.250", 81))


def test_an_address_stays_its_containers_and_is_free_when_that_is_gone(host: Host) -> None:
    host.call("apply_table", bridge("tiny", "a", "b", "c", "d", subnets=("10.78.0.0/29",)))
    for task in ("a", "b"):
        host.call("attach", on(task, "tiny"))
    before = address(host, "a")
    host.kill()
    host.start()
    host.call("attach", on("a", "tiny"))
    assert address(host, "a") == before
    taken = {address(host, "a"), address(host, "b")}
    tasks = ("c", "d", "e")
    for task in tasks:
        host.call("attach", on(task, "tiny"))
        taken.add(address(host, task))
    assert len(taken) == 5, "five containers fit beside the gateway"
    with pytest.raises(Refused, match=r"no free address left on this node in 10\.78\.0\.0/29"):
        host.call("attach", on("f", "tiny"))
    host.call("detach", "b")
    host.call("attach", on("f", "tiny"))
    fixed = Attachment(network_id="net-tiny", endpoint_id="g", addresses=(f"{before}/29",))
    with pytest.raises(Refused, match=f"address {before} is in use on this node"):
        host.call("attach", Sandbox(sandbox_id="g", attachments=(fixed,)))


def test_what_was_damaged_is_repaired_and_what_is_not_wanted_goes(host: Host) -> None:
    host.call("apply_table", bridge("app", "a", "b"))
    host.call("attach_all", [on("a", "app"), on("b", "app")])
    [device] = [name for name in links(host) if name.startswith("ps-b")]
    with serving(host, "a", "b"):
        for damage in (
            ("ip", "link", "delete", device),
            ("nft", "flush", "table", "inet", "ps_drivers"),
            ("ip", "address", "flush", "dev", device),
            ("ip", "link", "set", device, "down"),
        ):
            host.run(*damage)
            assert host.call("verify") != [], damage
            assert host.call("verify") == [], damage
            assert reaches(host, "a", address(host, "b")), damage
            assert reaches(host, None, address(host, "b")), damage
    host.call("retain", [])
    assert not {name for name in links(host) if name.startswith("ps-b")}, "no container, no bridge"
    host.call("remove_network", "net-app")
    host.call("verify")
    assert not list((host.config.state_dir / "drivers").glob("*.json"))


def test_a_bridge_that_a_killed_daemon_left_unused_is_removed(host: Host) -> None:
    host.call("apply_table", bridge("app", "a"))
    host.call("attach", on("a", "app"))
    host.kill()
    for record in (host.config.state_dir / "sandboxes").iterdir():
        record.unlink()
    host.start()
    host.call("verify")
    assert not {name for name in links(host) if name.startswith(("ps-b", "ps-p"))}


def test_an_interface_of_somebody_else_is_not_taken_for_a_bridge(host: Host) -> None:
    host.run("ip", "link", "add", "br-mine", "type", "bridge")
    host.call("apply_table", bridge("app", "a", options={options.BRIDGE_NAME: "br-mine"}))
    with pytest.raises(Refused, match="an interface br-mine exists on this node already"):
        host.call("attach", on("a", "app"))
    assert host.call("sandboxes") == []
    assert "br-mine" in links(host)


def test_every_network_gets_a_subnet_that_nobody_routes(host: Host) -> None:
    host.run("ip", "route", "add", "172.17.0.0/16", "dev", "eth0")
    host.call("apply_table", NetworkTable(network_id="ov", name="ov", vni=4097, subnets=("172.19.0.0/16",)))
    for name in ("one", "two"):
        host.call("apply_table", bridge(name, name))
        host.call("attach", on(name, name))
    assert {address(host, name).rsplit(".", 2)[0] for name in ("one", "two")} == {"172.20", "172.21"}


def test_the_whole_lab_is_clean_after_destroy(host: Host) -> None:
    host.call("apply_table", bridge("app", "a"))
    host.call("attach", on("a", "app"))
    host.call("destroy")
    assert not {name for name in links(host) if name.startswith("ps-")}
    assert "ps_" not in host.run("nft", "list", "tables")
