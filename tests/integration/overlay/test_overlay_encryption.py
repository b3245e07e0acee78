"""Encrypted networks between real hosts, by wireguard-go: what works, what is on the wire, what survives what."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from overlay_lab import Host, Lab, Refused, ask, lab_of, visit
from sealed_lab import (
    MARKER,
    NET,
    VNI,
    VXLAN_PORT,
    Managers,
    Streams,
    Wire,
    inner_netns,
    keys_of,
    on,
    process_of,
    sealed_table,
    wait_until,
)
from test_overlay_kernel import box

from pyswarm_overlay import Attachment, NetworkTable
from pyswarm_overlay.core.names import mac_of

pytestmark = pytest.mark.root


def start(lab: Lab) -> None:
    """Every host with its sandbox on the encrypted network: c11, c12, ..."""
    table = sealed_table(*(on(host, number) for number, host in enumerate(lab.hosts, 11)))
    for number, host in enumerate(lab.hosts, 11):
        host.start()
        host.call("apply_table", table)
        host.call("attach", box(number))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two hosts that know one another. Tests leave both running, but for the last one."""
    with lab_of(tmp_path_factory.mktemp("sealed"), hosts=2) as lab:
        start(lab)
        Managers(lab.hosts).relay()
        lab.serve(lab.hosts[0].netns("c11"), "c11")
        lab.serve(lab.hosts[1].netns("c12"), "c12")
        yield lab


def is_alive(host: Host, but: int) -> bool:
    """Another process is the device."""
    try:
        return process_of(host) != but
    except OSError:
        return False


def reaches(host: Host, own: int, other: int) -> bool:
    try:
        return host.visit(f"c{own}", lambda: ask(f"10.0.1.{other}")) == [f"c{other}", f"10.0.1.{own}"]
    except OSError:
        return False


def both_ways(lab: Lab) -> bool:
    first, second = lab.hosts
    return reaches(first, 11, 12) and reaches(second, 12, 11)


def links(host: Host, netns: str | None = None) -> list[str]:
    return [link["ifname"] for link in json.loads(host.run("ip", "-j", "link", netns=netns))]


def test_three_rotations_lose_no_packet_and_show_none(tmp_path: Path) -> None:
    with lab_of(tmp_path, hosts=3) as lab:
        start(lab)
        managers = Managers(lab.hosts)
        places = [(host, number) for number, host in enumerate(lab.hosts, 11)]
        wire = Wire(lab.outside)
        streams = Streams((*source, *target) for source in places for target in places if source is not target)
        try:
            managers.relay()
            streams.wait_all_arrive()
            begun = list(streams.sent)
            managers.rotate(3)
            streams.wait_all_arrive()
            assert streams.lost_since(begun) == [0] * 6
        finally:
            streams.close()
            wire.stop()
        assert all(len(keys) >= 4 for keys in managers.history.values())
        assert wire.sealed > sum(streams.sent[way] - begun[way] for way in range(6))
        assert (wire.readable, wire.vxlan) == (0, 0)
        assert [len(keys_of(host)) for host in lab.hosts] == [1, 1, 1]


def test_plaintext_is_never_on_the_wire(tmp_path: Path) -> None:
    """Before there is a tunnel, while its process is dead, after a peer was removed."""
    with lab_of(tmp_path, hosts=2) as lab:
        first, second = lab.hosts
        wire = Wire(lab.outside)
        start(lab)
        streams = Streams([(first, 11, second, 12), (second, 12, first, 11)])
        try:
            wait_until(lambda: min(streams.sent) > 20, "nothing is sent before there is a peer")
            assert not any(streams.got)
            Managers(lab.hosts).relay()
            streams.wait_all_arrive()
            dead = process_of(first)
            os.kill(dead, signal.SIGKILL)
            wait_until(lambda: is_alive(first, but=dead), "no process takes the place of the dead one")
            streams.wait_all_arrive()
            first.call("update_peers", [], [second.address], False)
            held = len(streams.got[0])
            at = streams.sent[0]
            wait_until(lambda: streams.sent[1] > at + 100, "the streams end")
            assert max(streams.got[0]) <= at + 1
            assert len(streams.got[0]) - held <= 1
        finally:
            streams.close()
            wire.stop()
        assert wire.sealed > 0
        assert (wire.readable, wire.vxlan) == (0, 0)


def plain_table(host: Host) -> NetworkTable:
    peer = msgspec.structs.replace(on(host, 12), endpoint_id="p12", addresses=("10.0.2.12",))
    return NetworkTable(
        network_id="plain", name="plain", vni=VNI + 1, subnets=("10.0.2.0/24",), version=1, endpoints=(peer,)
    )


def forged(vni: int, target: str) -> bytes:
    """A VXLAN packet with a datagram for a sandbox, as anybody could send it."""
    data = MARKER + vni.to_bytes(4, "big")
    datagram = struct.pack("!HHHH", 7, 9999, 8 + len(data), 0) + data
    head = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0))
    head += socket.inet_aton(target.rpartition(".")[0] + ".77") + socket.inet_aton(target)
    total = sum(struct.unpack("!10H", head))
    head[10:12] = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
    mac = bytes.fromhex(mac_of((target,)).replace(":", ""))
    return struct.pack("!II", 0x08000000, vni << 8) + mac + b"\x02\x42forg" + b"\x08\x00" + bytes(head) + datagram


def test_plaintext_from_the_wire_is_not_let_in(sealed: Lab) -> None:
    second = sealed.hosts[1]
    second.call("apply_table", plain_table(second))
    plain = Attachment(network_id="plain", endpoint_id="p12", addresses=("10.0.2.12/24",))
    second.call("attach", box(12, attachments=(*box(12).attachments, plain)))

    def listen() -> socket.socket:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("0.0.0.0", 9999))
        receiver.settimeout(5)
        return receiver

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for vni, target in ((VNI, "10.0.1.12"), (VNI + 1, "10.0.1.12"), (VNI + 1, "10.0.2.12")):
                sender.sendto(forged(vni, target), (second.address, VXLAN_PORT))

    with second.visit("c12", listen) as receiver:
        visit(sealed.outside, send)
        # The plain network takes what was forged for it, so the packets are good; the one before it never comes.
        assert receiver.recv(2048) == MARKER + (VNI + 1).to_bytes(4, "big")


def test_a_killed_daemon_leaves_the_tunnels_to_the_next_one(sealed: Lab) -> None:
    first, second = sealed.hosts
    assert both_ways(sealed)
    process, keys = process_of(first), keys_of(first)
    first.kill()
    assert both_ways(sealed)
    first.start()
    assert (process_of(first), keys_of(first)) == (process, keys)
    assert both_ways(sealed)
    assert first.call("verify") == []
    second.call("close")
    second.kill()
    assert both_ways(sealed)
    second.start()


def test_the_key_is_on_no_command_line_and_in_no_file_that_others_read(sealed: Lab) -> None:
    first = sealed.hosts[0]
    process = Path(f"/proc/{process_of(first)}")
    saved = first.config.run_dir / "tunnel-keys.json"
    private = msgspec.json.decode(saved.read_bytes())[0]["private"]
    assert saved.stat().st_mode & 0o777 == 0o600
    shown = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
    shown += first.config.run_dir.joinpath("wireguard-go.log").read_bytes()
    assert private.encode() not in shown
    assert b"wireguard-go" in shown


def test_what_is_taken_away_by_hand_is_put_back(sealed: Lab) -> None:
    first = sealed.hosts[0]
    inner = inner_netns(first)
    assert both_ways(sealed)
    for command in (
        ("ip", "-6", "route", "flush", "proto", "static"),
        ("ip", "address", "flush", "dev", "ps-wg0"),
        ("ip", "link", "set", "ps-wg0", "down"),
        ("ip", "link", "del", "vxlan0"),
    ):
        first.run(*command, netns=first.overlay_netns(NET) if "vxlan0" in command else inner)
        first.call("verify")  # the tunnels' own supervisor may have been faster
        wait_until(lambda: both_ways(sealed), f"not repaired: {command}")
    assert first.call("verify") == []


def test_a_taken_port_is_passed_over(tmp_path: Path) -> None:
    with lab_of(tmp_path, hosts=2) as lab:
        first = lab.hosts[0]
        with first.visit(None, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
            taken.bind(("0.0.0.0", 51820))
            start(lab)
        Managers(lab.hosts).relay()
        lab.serve(lab.hosts[1].netns("c12"), "c12")
        assert [key.port for key in keys_of(first)] == [51821]
        wait_until(lambda: reaches(first, 11, 12), "no tunnel at another port")


def test_hosts_that_have_ipv6_only_between_them(tmp_path: Path) -> None:
    with lab_of(tmp_path, hosts=2) as lab:
        for number, host in enumerate(lab.hosts, 1):
            host.address = f"2001:db8::{number}"
            host.run("ip", "address", "add", f"{host.address}/64", "dev", "eth0", "nodad")
            host.config = msgspec.structs.replace(host.config, node_address=host.address)
        start(lab)
        Managers(lab.hosts).relay()
        lab.serve(lab.hosts[1].netns("c12"), "c12")
        wait_until(lambda: reaches(lab.hosts[0], 11, 12), "no tunnel over IPv6")
        [link] = json.loads(lab.hosts[0].run("ip", "-j", "link", "show", "eth0", netns=lab.hosts[0].netns("c11")))
        assert link["mtu"] == 1500 - 70 - 80


def test_large_packets_fit(sealed: Lab) -> None:
    first = sealed.hosts[0]
    [link] = json.loads(first.run("ip", "-j", "link", "show", "eth0", netns=first.netns("c11")))
    assert link["mtu"] == 1500 - 50 - 80
    wire = Wire(sealed.outside)
    first.run("ping", "-c1", "-W5", "-Mdo", "-s", str(link["mtu"] - 28), "10.0.1.12", netns=first.netns("c11"))
    assert wire.stop().sealed >= 2


def test_a_host_that_cannot_encrypt_says_so(tmp_path: Path) -> None:
    with lab_of(tmp_path, hosts=1) as lab:
        host = lab.hosts[0]
        host.run("nsenter", "-t", str(host.pid), "-m", "mount", "--bind", "/bin/false", "/usr/bin/wireguard-go")
        host.start()
        host.call("apply_table", sealed_table(on(host, 11)))
        with pytest.raises(Refused, match="wireguard-go"):
            host.call("attach", box(11))
        assert host.call("sandboxes") == []


def test_nothing_is_left_in_the_end(sealed: Lab) -> None:
    first = sealed.hosts[0]
    process = process_of(first)
    first.call("destroy")
    first.kill()
    wait_until(lambda: not Path(f"/proc/{process}").exists(), "the tunnel's process goes on")
    assert not [link for link in links(first) if link.startswith("ps-")]
    assert not first.mounts()
    assert not (first.config.run_dir / "tunnel-keys.json").exists()
