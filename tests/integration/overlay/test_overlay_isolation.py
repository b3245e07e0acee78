"""Containers that try to reach networks which they are not on: by packets that they tunnel themselves, or past them."""

from __future__ import annotations

import socket
import struct

import pytest
from overlay_lab import Host, Lab, visit

from pyswarm_overlay import Attachment, EndpointRecord, NetworkTable, Sandbox

pytestmark = pytest.mark.root

ATTACKER, VICTIM_HERE, VICTIM_THERE = "10.0.1.10", "10.0.2.10", "10.0.2.20"
VNI, PORT, DATA_PATH_PORT = 4098, 9999, 4789
WAY_OUT = "172.18.0.1"


def endpoint(name: str, host: Host, address: str) -> EndpointRecord:
    return EndpointRecord(endpoint_id=name, name=name, addresses=(address,), node_address=host.address, ready=True)


def box(name: str, network_id: str, address: str) -> Sandbox:
    place = Attachment(network_id=network_id, endpoint_id=name, addresses=(f"{address}/24",))
    return Sandbox(sandbox_id=name, attachments=(place,))


@pytest.fixture
def apart(lab: Lab) -> Lab:
    """The attacker alone on one network of the first host; victims on another network, one on each host."""
    first, second = lab.hosts
    attackers = NetworkTable(
        network_id="na", name="a", vni=4097, subnets=("10.0.1.0/24",), endpoints=(endpoint("a", first, ATTACKER),)
    )
    victims = NetworkTable(
        network_id="nb",
        name="b",
        vni=VNI,
        subnets=("10.0.2.0/24",),
        endpoints=(endpoint("b1", first, VICTIM_HERE), endpoint("b2", second, VICTIM_THERE)),
    )
    for host in lab.hosts:
        host.call("apply_table", attackers)
        host.call("apply_table", victims)
    first.call("attach_all", [box("a", "na", ATTACKER), box("b1", "nb", VICTIM_HERE)])
    second.call("attach", box("b2", "nb", VICTIM_THERE))
    return lab


def listening() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", PORT))
    sock.settimeout(5.0)
    return sock


def tunnelled(victim: str, payload: bytes) -> bytes:
    """What a VXLAN device sends to have a datagram from 10.0.2.77 on the victim's network."""
    source, destination = socket.inet_aton("10.0.2.77"), socket.inet_aton(victim)
    datagram = struct.pack(">HHHH", 5555, PORT, 8 + len(payload), 0) + payload
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, source, destination)
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack(">H", ~total & 0xFFFF) + header[12:]
    ethernet = b"\x02\x42" + destination + b"\x02\x42" + source + b"\x08\x00"
    return struct.pack(">BxxxI", 8, VNI << 8) + ethernet + header + datagram


def send(packet: bytes, *addresses: str) -> None:
    """A large packet leaves in fragments: options that say nothing make it longer than what the interface takes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 40)
        for address in addresses:
            sock.sendto(packet, (address, DATA_PATH_PORT))


@pytest.mark.parametrize("size", [10, 1400], ids=["whole", "in-fragments"])
def test_a_container_cannot_tunnel_into_another_network(apart: Lab, size: int) -> None:
    first, second = apart.hosts
    here, there = visit(first.netns("b1"), listening), visit(second.netns("b2"), listening)
    forged, genuine = b"f" * size, b"g" * size
    try:
        first.visit("a", lambda: send(tunnelled(VICTIM_HERE, forged), first.address, WAY_OUT))
        first.visit("a", lambda: send(tunnelled(VICTIM_THERE, forged), second.address))
        # The same from a node arrives, so the packets are right, and what came before them would be read first.
        first.visit(None, lambda: send(tunnelled(VICTIM_THERE, genuine), second.address))
        second.visit(None, lambda: send(tunnelled(VICTIM_HERE, genuine), first.address))
        assert here.recv(4096) == genuine
        assert there.recv(4096) == genuine
    finally:
        here.close()
        there.close()


def test_a_container_reaches_others_on_no_way_past_the_networks(apart: Lab) -> None:
    first, _second = apart.hosts
    apart.serve(first.netns("b1"), "b1")
    addresses = first.run("ip", "-4", "-o", "address", netns=first.netns("b1")).split()
    ways = [text.partition("/")[0] for text in addresses if text.startswith("172.18.")]
    assert ways
    for address in (VICTIM_HERE, VICTIM_THERE, *ways):
        with pytest.raises(OSError):  # refused, unreachable or no answer
            first.visit("a", lambda to=address: socket.create_connection((to, 80), timeout=1.0).close())
