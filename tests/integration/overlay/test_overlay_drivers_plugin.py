"""Plugins of Docker's kind: a network driver and an IPAM driver in a process of their own, asked over a unix socket."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from overlay_lab import Host, Refused, ask, lab_of
from test_overlay_kernel import addresses, resolve

from pyswarm_overlay import Attachment, EndpointRecord, NetworkTable, Sandbox

pytestmark = pytest.mark.root

PLUGIN = Path(__file__).with_name("driver_plugin.py")


class PluginProcess:
    """The plugin, in the host's namespace."""

    def __init__(self, host: Host, directory: Path, scope: str = "local") -> None:
        self.calls_file = directory / "calls"
        self.socket = directory / "plugins" / "acme.sock"
        command = ["nsenter", "-t", str(host.pid), "-n", sys.executable, str(PLUGIN)]
        arguments = [str(self.socket), str(self.calls_file), scope]
        self.process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return [(method, request) for method, request in map(json.loads, lines)]

    def methods(self) -> list[str]:
        return [method.partition(".")[2] for method, _request in self.calls()]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.socket.unlink(missing_ok=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """One host whose plugins are looked for in the test's directory; its daemon runs."""
    with lab_of(tmp_path, hosts=1) as lab:
        host = lab.hosts[0]
        places = {"plugin_sockets": tmp_path / "plugins", "plugin_specs": (tmp_path / "specs",)}
        host.config = msgspec.structs.replace(host.config, **places)
        host.start()
        yield host


@pytest.fixture
def plugin(host: Host, tmp_path: Path) -> Iterator[PluginProcess]:
    made = PluginProcess(host, tmp_path)
    yield made
    made.end()


def network(host: Host, *tasks: str, **changes: Any) -> NetworkTable:
    endpoints = tuple(
        EndpointRecord(
            endpoint_id=task,
            name=f"web.{task}",
            hostname=task,
            addresses=() if changes.get("ipam_driver") else (f"10.99.0.{number}",),
            node_address=host.address,
            ready=True,
        )
        for number, task in enumerate(tasks, 10)
    )
    settings: dict[str, Any] = {
        "network_id": "net-acme",
        "name": "acme",
        "vni": 0,
        "driver": "acme",
        "subnets": ("10.99.0.0/24",),
        "gateways": ("10.99.0.1",),
        "options": {"colour": "blue"},
        "endpoints": endpoints,
    }
    return NetworkTable(**{**settings, **changes})


def on(task: str, *given: str, **changes: Any) -> Sandbox:
    attachment = Attachment(network_id="net-acme", endpoint_id=task, addresses=given)
    return Sandbox(sandbox_id=task, hostname=task, attachments=(attachment,), **changes)


def links(host: Host) -> set[str]:
    return {link["ifname"] for link in json.loads(host.run("ip", "-j", "link"))}


def address(host: Host, task: str) -> str:
    [link] = json.loads(host.run("ip", "-j", "-4", "address", "show", "dev", "eth0", netns=host.netns(task)))
    return str(link["addr_info"][0]["local"])


def test_a_driver_makes_the_interfaces_of_its_networks(host: Host, plugin: PluginProcess) -> None:
    host.call("apply_table", network(host, "a", "b"))
    host.call("attach", on("a", "10.99.0.10/24"))
    host.call("attach", on("b", "10.99.0.11/24"))
    for task in ("a", "b"):
        host.lab.serve(host.netns(task), task)
    assert host.visit("a", lambda: ask("10.99.0.11")) == ["b", "10.99.0.10"]
    assert addresses(resolve(host, "a", "b")) == {"10.99.0.11"}
    created = dict(plugin.calls())["NetworkDriver.CreateNetwork"]
    assert created["Options"]["com.docker.network.generic"] == {"colour": "blue"}
    assert created["IPv4Data"] == [
        {"AddressSpace": "", "Pool": "10.99.0.0/24", "Gateway": "10.99.0.1/24", "AuxAddresses": {}}
    ]
    [endpoint, _second] = [request for method, request in plugin.calls() if method.endswith("CreateEndpoint")]
    assert endpoint["Interface"] == {"Address": "10.99.0.10/24", "AddressIPv6": "", "MacAddress": ""}
    routes = json.loads(host.run("ip", "-j", "route", netns=host.netns("a")))
    gateways = {route["dst"]: route.get("gateway") for route in routes}
    assert gateways == {"default": "10.99.0.1", "198.18.0.0/16": "10.99.0.1", "10.99.0.0/24": None}
    [inside] = json.loads(host.run("ip", "-j", "link", "show", "eth0", netns=host.netns("a")))
    assert inside["address"].startswith("02:aa:00:00:00:")
    assert plugin.methods().count("CreateNetwork") == 1
    assert host.call("verify") == []


def test_everything_is_given_back(host: Host, plugin: PluginProcess) -> None:
    host.call("apply_table", network(host, "a", ipam_driver="acme"))
    host.call("attach", on("a"))
    assert address(host, "a") == "10.99.0.2"
    assert addresses(resolve(host, "a", "a")) == {"10.99.0.2"}
    host.call("detach", "a")
    asked = plugin.methods()
    assert [method for method in asked if method.startswith(("Request", "Create", "Join", "Program"))] == [
        *("RequestPool", "RequestAddress", "CreateNetwork", "RequestAddress", "CreateEndpoint", "Join"),
        "ProgramExternalConnectivity",
    ]
    assert asked[-7:] == [
        *("RevokeExternalConnectivity", "Leave", "DeleteEndpoint", "ReleaseAddress"),
        *("DeleteNetwork", "ReleaseAddress", "ReleasePool"),
    ]
    assert not {name for name in links(host) if name.startswith(("plug", "pin", "pou"))}
    assert not list((host.config.state_dir / "plugins").glob("*.json"))


def test_a_bridge_may_have_its_addresses_of_a_plugin(host: Host, plugin: PluginProcess) -> None:
    host.call("apply_table", network(host, "a", "b", driver="bridge", ipam_driver="acme", options={}))
    host.call("attach", on("a"))
    host.call("attach", on("b"))
    host.lab.serve(host.netns("b"), "b")
    assert {address(host, "a"), address(host, "b")} == {"10.99.0.2", "10.99.0.3"}
    assert host.visit("a", lambda: ask("10.99.0.3"))[0] == "b"
    assert "CreateNetwork" not in plugin.methods()


def test_what_a_killed_daemon_had_is_given_back_by_the_next(host: Host, plugin: PluginProcess) -> None:
    host.call("apply_table", network(host, "a", "b", ipam_driver="acme"))
    host.call("attach", on("a"))
    host.call("attach", on("b"))
    host.kill()
    for record in (host.config.state_dir / "sandboxes").iterdir():
        if record.name.startswith("a-"):
            record.unlink()
    host.start()
    asked = plugin.methods()
    assert asked.count("DeleteEndpoint") == 1
    assert asked.count("DeleteNetwork") == 0, "b is still on it"
    assert asked.count("CreateEndpoint") == 2, "nothing that works is made again"
    host.call("detach", "b")
    assert plugin.methods().count("ReleasePool") == 1
    assert not list((host.config.state_dir / "plugins").glob("*.json"))


def test_what_cannot_be_given_back_is_remembered(host: Host, plugin: PluginProcess, tmp_path: Path) -> None:
    host.call("apply_table", network(host, "a", ipam_driver="acme"))
    host.call("attach", on("a"))
    plugin.end()
    host.call("detach", "a")
    assert list((host.config.state_dir / "plugins").glob("*.json")), "nobody answered: it is not given back"
    again = PluginProcess(host, tmp_path)
    try:
        host.kill()
        host.start()
        assert again.methods()[-1] == "ReleasePool"
        assert not list((host.config.state_dir / "plugins").glob("*.json"))
    finally:
        again.end()


def test_an_interface_that_is_gone_is_made_again(host: Host, plugin: PluginProcess) -> None:
    host.call("apply_table", network(host, "a", "b"))
    host.call("attach", on("a", "10.99.0.10/24"))
    host.call("attach", on("b", "10.99.0.11/24"))
    host.lab.serve(host.netns("b"), "b")
    host.run("ip", "link", "delete", "eth0", netns=host.netns("a"))
    assert host.call("verify") != []
    assert host.visit("a", lambda: ask("10.99.0.11"))[0] == "b"
    assert plugin.methods().count("CreateEndpoint") == 3
    assert host.call("verify") == []


def test_a_refusal_names_the_plugin(host: Host, plugin: PluginProcess) -> None:
    host.call("apply_table", network(host, "a", options={"refuse": "yes"}))
    with pytest.raises(Refused, match=r"network plugin acme: NetworkDriver\.CreateNetwork: ValueError: this"):
        host.call("attach", on("a", "10.99.0.10/24"))
    assert host.call("sandboxes") == []
    assert not list((host.config.state_dir / "plugins").glob("*.json"))


def test_a_plugin_that_makes_no_interface_is_asked_twice_and_no_more(host: Host, tmp_path: Path) -> None:
    liar = PluginProcess(host, tmp_path, "liar")
    try:
        host.call("apply_table", network(host, "a"))
        with pytest.raises(Refused, match="network acme: the interface that its plugin made is gone"):
            host.call("attach", on("a", "10.99.0.10/24"))
        assert liar.methods().count("Join") == 2
        assert host.call("sandboxes") == []
    finally:
        liar.end()


def test_a_plugin_that_is_not_there_is_named(host: Host) -> None:
    host.call("apply_table", network(host, "a"))
    with pytest.raises(Refused, match="could not find plugin acme in v1 plugin registry"):
        host.call("attach", on("a", "10.99.0.10/24"))


def test_a_driver_of_many_nodes_is_told_of_them(host: Host, tmp_path: Path) -> None:
    everywhere = PluginProcess(host, tmp_path, "global")
    try:
        peer = EndpointRecord(endpoint_id="p", name="p", addresses=("10.99.0.20",), node_address="192.0.2.7")
        table = network(host, "a")
        host.call("apply_table", msgspec.structs.replace(table, endpoints=(*table.endpoints, peer)))
        host.call("attach", on("a", "10.99.0.10/24"))
        told = [request["DiscoveryData"] for method, request in everywhere.calls() if "DiscoverNew" in method]
        assert told == [
            {"Address": "192.0.2.1", "BindAddress": "192.0.2.1", "Self": True},
            {"Address": "192.0.2.7", "BindAddress": "192.0.2.7", "Self": False},
        ]
    finally:
        everywhere.end()


def test_a_file_names_a_plugins_socket(host: Host, tmp_path: Path) -> None:
    made = PluginProcess(host, tmp_path)
    try:
        elsewhere = tmp_path / "elsewhere.sock"
        made.socket.rename(elsewhere)
        (tmp_path / "specs").mkdir()
        (tmp_path / "specs" / "acme.json").write_text(json.dumps({"Name": "acme", "Addr": f"unix://{elsewhere}"}))
        host.call("apply_table", network(host, "a"))
        host.call("attach", on("a", "10.99.0.10/24"))
        assert "Join" in made.methods()
    finally:
        made.end()


def test_a_socket_that_answers_nonsense_is_refused(host: Host, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "plugins" / "acme.sock"))
        listener.listen()
        host.call("apply_table", network(host, "a"))
        assert host.daemon is not None
        request = msgspec.json.encode(["attach", [on("a", "10.99.0.10/24")]]) + b"\n"
        assert host.daemon.process.stdin is not None
        host.daemon.process.stdin.write(request)
        host.daemon.process.stdin.flush()
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[not json")
        connection.close()
        listener.close()
        with pytest.raises(
            Refused, match=r"network plugin acme: NetworkDriver\.CreateNetwork answered with what is no"
        ):
            host.daemon._read()
