"""What happens when a daemon is killed, somebody meddles, or everything has to go."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay_lab import Host, Lab, Refused, ask, lab_of
from test_overlay_kernel import INGRESS, NET, VIP, addresses, box, endpoint, ingress_box, resolve, web_table

from pyswarm_overlay import Attachment, EndpointRecord, IngressBackend, IngressPort, NetworkTable, Sandbox, TableDelta

pytestmark = pytest.mark.root


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Lab]:
    """A lab of one host, its daemon up, with the web network's table."""
    with lab_of(tmp_path, hosts=1) as lab:
        host = lab.hosts[0]
        host.start()
        host.call("apply_table", web_table(endpoint(10, host), endpoint(11, host)))
        yield lab


def links(host: Host, netns: str | None = None) -> list[str]:
    return [link["ifname"] for link in json.loads(host.run("ip", "-j", "link", netns=netns))]


def works(host: Host) -> None:
    """c10 reaches the service by its name."""
    assert addresses(resolve(host, "c10", "web")) == {VIP}
    assert {host.visit("c10", lambda: ask(VIP))[0] for _ in range(4)} == {"c10", "c11"}


@pytest.mark.parametrize("after_ms", [0, 1, 2, 4, 6, 9])
def test_killed_in_the_middle_of_an_attach(one: Lab, after_ms: int) -> None:
    host = one.hosts[0]
    host.call("attach", box(11))
    with pytest.raises(EOFError):
        host.call("attach_and_die", box(10), after_ms / 1000)
    host.kill()
    host.start()
    assert set(host.call("sandboxes")) <= {"c10", "c11"}
    host.call("attach", box(10))
    one.serve(host.netns("c10"), "c10")
    one.serve(host.netns("c11"), "c11")
    works(host)
    assert host.call("verify") == []


def test_a_killed_daemon_changes_nothing_and_a_new_one_takes_over(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(10), box(11)])
    one.serve(host.netns("c10"), "c10")
    one.serve(host.netns("c11"), "c11")
    works(host)
    host.kill()
    assert {host.visit("c10", lambda: ask(VIP))[0] for _ in range(4)} == {"c10", "c11"}
    host.start()
    works(host)
    assert host.call("verify") == []
    assert host.call("sandboxes") == ["c10", "c11"]
    gone = web_table(endpoint(11, host), version=2)
    host.call("apply_table", gone)
    assert {host.visit("c10", lambda: ask(VIP))[0] for _ in range(4)} == {"c11"}


def test_a_polite_close_keeps_the_data_plane(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(10), box(11)])
    one.serve(host.netns("c11"), "c11")
    host.call("close")
    host.kill()
    assert host.visit("c10", lambda: ask("10.0.1.11"))[0] == "c11"


def test_verify_repairs_what_was_removed_by_hand(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(10), box(11)])
    one.serve(host.netns("c10"), "c10")
    one.serve(host.netns("c11"), "c11")
    overlay = host.overlay_netns(NET)
    damages = [
        (("ip", "link", "del", "eth0"), host.netns("c10"), "eth0"),
        (("ip", "link", "del", "eth1"), host.netns("c10"), "eth1"),
        (("ip", "address", "flush", "dev", "eth0"), host.netns("c10"), "10.0.1.10/24"),
        (("ip", "route", "del", "default"), host.netns("c10"), "172.18.0.1"),
        (("ip", "link", "set", "eth0", "down"), host.netns("c11"), "eth0 is down"),
        (("nft", "flush", "ruleset"), host.netns("c10"), "ps_vip is missing"),
        (("nft", "flush", "chain", "ip", "ps_vip", "vip_10_0_1_2"), host.netns("c10"), "ps_vip"),
        (("nft", "delete", "table", "inet", "ps_overlay"), host.netns(), "ps_overlay"),
        (("ip", "link", "del", "vxlan0"), overlay, "vxlan0"),
        (("ip", "link", "set", "vxlan0", "down"), overlay, "vxlan0"),
        (("ip", "link", "set", "vxlan0", "name", "odd0"), overlay, "vxlan0"),
    ]
    for command, netns, named in damages:
        host.run(*command, netns=netns)
        problems = host.call("verify")
        assert any(named in problem for problem in problems), (command, problems)
        works(host)
        assert host.call("verify") == []


def test_verify_mounts_living_namespaces_again(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(10), box(11)])
    one.serve(host.netns("c10"), "c10")
    one.serve(host.netns("c11"), "c11")
    before = Path(host.netns("c10")).stat().st_ino
    for path in (host.config.run_dir / "netns" / "c10", host.config.run_dir / "overlays" / NET):
        host.run("nsenter", "-t", str(host.pid), "-m", "umount", "-l", str(path))
    problems = host.call("verify")
    assert any("not mounted" in problem for problem in problems)
    assert Path(host.netns("c10")).stat().st_ino == before
    works(host)
    assert host.call("verify") == []


def test_verify_repairs_tunnel_entries(one: Lab) -> None:
    host = one.hosts[0]
    peer = EndpointRecord(endpoint_id="t12", name="web.12", addresses=("10.0.1.12",), node_address="192.0.2.77")
    host.call("apply_table", web_table(endpoint(10, host), peer, version=2))
    host.call("attach", box(10))
    overlay = host.overlay_netns(NET)
    mac = "02:42:0a:00:01:0c"
    assert f"{mac} dst 192.0.2.77" in host.run("bridge", "fdb", "show", "dev", "vxlan0", netns=overlay)
    host.run("bridge", "fdb", "del", mac, "dev", "vxlan0", "dst", "192.0.2.77", netns=overlay)
    host.run("ip", "neigh", "add", "10.0.1.99", "lladdr", "02:42:0a:00:01:63", "dev", "vxlan0", netns=overlay)
    problems = host.call("verify")
    assert any(mac in problem for problem in problems)
    assert any("10.0.1.99" in problem for problem in problems)
    assert f"{mac} dst 192.0.2.77" in host.run("bridge", "fdb", "show", "dev", "vxlan0", netns=overlay)
    assert host.call("verify") == []


def test_rules_flushed_inside_a_container_are_rewritten_by_the_next_change(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(10), box(11)])
    one.serve(host.netns("c11"), "c11")
    host.run("nft", "flush", "ruleset", netns=host.netns("c10"))
    host.call("apply_table", web_table(endpoint(11, host), version=2))
    assert {host.visit("c10", lambda: ask(VIP))[0] for _ in range(2)} == {"c11"}
    assert addresses(resolve(host, "c10", "web")) == {VIP}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_attaching_and_detaching_while_the_table_changes(one: Lab, seed: int) -> None:
    host = one.hosts[0]
    deltas = [
        TableDelta(
            network_id=NET,
            from_version=version,
            version=version + 1,
            upsert_endpoints=(endpoint(10 + version % 7, host, ready=version % 3 != 0),),
            remove_endpoints=(f"t{10 + (version + 3) % 7}",),
        )
        for version in range(1, 60)
    ]
    assert host.call("storm", [box(number) for number in range(10, 16)], deltas, seed) is True
    assert host.call("sandboxes") == [f"c{number}" for number in range(10, 16)]
    assert host.call("verify") == []
    host.call("retain", [])
    assert not Path(host.overlay_netns(NET)).exists()


def test_attach_twice_is_attach_once(one: Lab) -> None:
    host = one.hosts[0]
    paths = {host.call("attach", box(10)) for _ in range(3)}
    assert len(paths) == 1
    assert sorted(links(host, host.netns("c10"))) == ["eth0", "eth1", "lo"]
    assert host.call("verify") == []


def test_attach_and_detach_again_and_again(one: Lab) -> None:
    host = one.hosts[0]
    for _ in range(5):
        host.call("attach", box(10))
        host.call("detach", "c10")
    host.call("attach", box(10))
    assert addresses(resolve(host, "c10", "web")) == {VIP}
    host.call("detach", "nobody")


def test_retain_removes_the_others(one: Lab) -> None:
    host = one.hosts[0]
    host.call("attach_all", [box(10), box(11)])
    host.call("retain", ["c11"])
    assert host.call("sandboxes") == ["c11"]
    assert not Path(host.netns("c10")).exists()
    assert host.call("verify") == []


def test_a_host_that_rebooted_starts_clean(one: Lab) -> None:
    """Its namespaces are gone, the records are not."""
    host = one.hosts[0]
    host.call("attach", box(10))
    host.kill()
    for mount in host.mounts():
        path = mount.split()[4]
        if "/netns/" in path or "/overlays/" in path:
            host.run("nsenter", "-t", str(host.pid), "-m", "umount", "-l", path)
    host.start()
    assert host.call("sandboxes") == []
    host.call("attach", box(10))
    assert addresses(resolve(host, "c10", "web")) == {VIP}


def test_two_networks_with_the_same_subnet(one: Lab) -> None:
    host = one.hosts[0]
    other = web_table(endpoint(10, host), network_id="net2", name="other", vni=4098)
    host.call("apply_table", other)
    twin = Attachment(network_id="net2", endpoint_id="x10", addresses=("10.0.1.10/24",))
    twin_peer = Attachment(network_id="net2", endpoint_id="x11", addresses=("10.0.1.11/24",))
    host.call("attach_all", [box(10), box(11)])
    host.call("attach", Sandbox(sandbox_id="d10", attachments=(twin,)))
    host.call("attach", Sandbox(sandbox_id="d11", attachments=(twin_peer,)))
    one.serve(host.netns("c11"), "c11")
    one.serve(host.netns("d11"), "d11")
    assert host.visit("c10", lambda: ask("10.0.1.11"))[0] == "c11"
    assert host.visit("d10", lambda: ask("10.0.1.11"))[0] == "d11"


def test_a_sandbox_on_two_networks_joins_and_leaves(one: Lab) -> None:
    host = one.hosts[0]
    second = NetworkTable(network_id="net2", name="back", vni=4098, subnets=("10.0.2.0/24",), version=1)
    host.call("apply_table", second)
    both = (*box(10).attachments, Attachment(network_id="net2", endpoint_id="b10", addresses=("10.0.2.10/24",)))
    host.call("attach", box(10, attachments=both))
    assert sorted(links(host, host.netns("c10"))) == ["eth0", "eth1", "eth2", "lo"]
    host.call("attach", box(10))
    assert sorted(links(host, host.netns("c10"))) == ["eth0", "eth1", "lo"]
    assert not Path(host.overlay_netns("net2")).exists()
    assert host.call("verify") == []


def test_refusals(one: Lab) -> None:
    host = one.hosts[0]
    nowhere = Attachment(network_id="nonet", endpoint_id="t", addresses=("10.7.0.2/24",))
    for sandbox, kind in (
        (box(10, attachments=(nowhere,)), "NotFound"),
        (box(10, sandbox_id="../x"), "InvalidArgument"),
        (box(10, attachments=(Attachment(network_id=NET, endpoint_id="t", addresses=("10.0.1",)),)), "InvalidArgument"),
    ):
        with pytest.raises(Refused) as refused:
            host.call("attach", sandbox)
        assert refused.value.kind == kind
    host.call("attach", box(10))
    with pytest.raises(Refused, match="is in use"):
        host.call("remove_network", NET)
    host.call("detach", "c10")
    host.call("remove_network", NET)
    host.call("remove_network", NET)
    assert host.call("sandboxes") == []


def test_a_node_address_of_another_host_is_refused(one: Lab) -> None:
    host = one.hosts[0]
    host.kill()
    host.config = type(host.config)(
        run_dir=host.config.run_dir, state_dir=host.config.state_dir, node_address="198.51.100.7"
    )
    with pytest.raises(Refused, match=r"198\.51\.100\.7"):
        host.start()


def test_the_way_out_avoids_a_subnet_that_another_program_has(one: Lab) -> None:
    host = one.hosts[0]
    host.call("destroy")
    host.kill()
    host.run("ip", "link", "add", "docker9", "type", "bridge")
    host.run("ip", "address", "add", "172.18.0.1/16", "dev", "docker9")
    host.run("ip", "link", "set", "docker9", "up")
    host.start()
    host.call("attach", Sandbox(sandbox_id="c1"))
    one.serve(one.outside, "outside", 8000)
    assert host.visit("c1", lambda: ask("192.0.2.250", 8000)) == ["outside", host.address]
    assert "172.19.0.2/16" in host.run("ip", "-4", "address", netns=host.netns("c1"))
    host.kill()
    host.start()
    assert host.call("verify") == []


def test_destroy_leaves_nothing(one: Lab) -> None:
    host = one.hosts[0]
    before = links(host)
    host.call("apply_table", ingress_table_of(host))
    host.call("attach_all", [ingress_box(10), box(11)])
    backend = IngressBackend(endpoint_id="t10", ingress_addresses=("10.9.0.10",), node_address=host.address)
    port = IngressPort(published_port=8080, target_port=80, service_id="s", backends=(backend,))
    host.call("set_ingress", ["10.9.0.2/24"], [port])
    host.call("destroy")
    host.kill()
    assert links(host) == before
    assert host.run("nft", "list", "ruleset") == ""
    assert host.mounts() == []
    left = [path for root in (host.config.run_dir, host.config.state_dir) for path in root.rglob("*")]
    assert left == []
    assert ":4789 " not in host.run("ss", "-lun")


def ingress_table_of(host: Host) -> NetworkTable:
    records = (
        EndpointRecord(endpoint_id="n1", name="n1", addresses=("10.9.0.2",), node_address=host.address),
        EndpointRecord(endpoint_id="t10", name="t10", addresses=("10.9.0.10",), node_address=host.address),
    )
    return NetworkTable(
        network_id=INGRESS,
        name="ingress",
        vni=4096,
        subnets=("10.9.0.0/24",),
        ingress=True,
        version=1,
        endpoints=records,
    )


def test_detached_sandboxes_take_their_interfaces_with_them(one: Lab) -> None:
    host = one.hosts[0]
    before = links(host)
    host.call("attach_all", [box(10), box(11)])
    host.call("detach", "c10")
    host.call("detach", "c11")
    host.call("verify")
    host.call("verify")  # removes what the kernel has not removed by now
    assert links(host) == before
    assert not Path(host.overlay_netns(NET)).exists()
    with contextlib.suppress(FileNotFoundError):
        assert list(Path(host.netns("c10")).parent.iterdir()) == []
