"""Cut connections: what is asked of the kernel, which entries are taken, and the segment that wakes a client."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_overlay.core.closing_packets import Connection, checksum, closing_packet, crc32c
from pyswarm_overlay.kernel import conntrack
from pyswarm_overlay.kernel.conntrack_wire import Entry
from pyswarm_overlay.kernel.netlink import attr, nested

PORTS = st.integers(1, 65535)
V4 = ("10.0.1.5", "10.0.1.2", "10.0.1.9")
V6 = ("fd00::5", "fd00::2", "fd00::9")
TCP, UDP, SCTP = 6, 17, 132
SYN_SENT, ESTABLISHED, TIME_WAIT = 1, 3, 7


@given(st.sampled_from((4, 6)), st.data(), PORTS, PORTS)
def test_a_probe_is_a_segment_that_the_client_takes_for_its_servers(
    version: int, data: st.DataObject, here: int, there: int
) -> None:
    client, server = (str(data.draw(st.ip_addresses(v=version))) for _ in range(2))
    packet = closing_packet(Connection((client, here), (server, there)))
    start = 20 if version == 4 else 40
    header, segment = packet[:start], packet[start:]
    source, destination = ip_address(server).packed, ip_address(client).packed
    assert header.endswith(source + destination)
    assert struct.unpack_from(">HH", segment) == (there, here)
    assert segment[13] == 0b11
    assert checksum(source + destination + struct.pack(">HH", TCP, len(segment)) + segment) == 0


def test_an_abort_has_the_clients_own_tag() -> None:
    for client, server, header in (("10.0.1.5", "10.0.1.2", 20), ("fd00::5", "fd00::2", 40)):
        packet = closing_packet(Connection((client, 5000), (server, 80), SCTP, tag=0xDEADBEEF))[header:]
        assert struct.unpack_from(">HHI", packet) == (80, 5000, 0xDEADBEEF)
        assert packet[12:] == b"\x06\x00\x00\x04"
        assert struct.unpack_from("<I", packet, 8)[0] == crc32c(packet[:8] + bytes(4) + packet[12:])
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


def entry(client: str, vip: str, backend: str, protocol: int = TCP, state: int = ESTABLISHED) -> Entry:
    """As the kernel lists a connection of port 40000 to port 80."""
    return Entry(
        bytes([socket.AF_INET if ":" not in client else socket.AF_INET6, 0, 0, 0])
        + _tuple(1, client, 40000, vip, 80, protocol)
        + _tuple(2, backend, 80, client, 40000, protocol)
        + nested(4, nested(1 if protocol == TCP else 3, attr(1, bytes([state])), attr(3, struct.pack(">I", 77))))
    )


def _tuple(kind: int, source: str, source_port: int, destination: str, destination_port: int, protocol: int) -> bytes:
    first = 1 if ":" not in source else 3
    addresses = nested(1, attr(first, ip_address(source).packed), attr(first + 1, ip_address(destination).packed))
    ports = attr(2, struct.pack(">H", source_port)) + attr(3, struct.pack(">H", destination_port))
    return nested(kind, addresses, nested(2, attr(1, bytes([protocol])), ports))


@pytest.mark.parametrize("addresses", [V4, V6], ids=["ipv4", "ipv6"])
def test_only_translated_connections_to_the_backend_are_cut(addresses: tuple[str, str, str]) -> None:
    client, vip, backend = addresses
    gone = frozenset({backend})
    for protocol in (TCP, UDP, SCTP):
        assert conntrack._is_doomed(entry(client, vip, backend, protocol), frozenset(), gone)
        assert not conntrack._is_doomed(entry(client, backend, backend, protocol), frozenset(), gone)
        assert not conntrack._is_doomed(entry(client, vip, client, protocol), frozenset(), gone)
        withdrawn_goes = conntrack._is_doomed(entry(client, vip, backend, protocol), gone, frozenset())
        assert withdrawn_goes is (protocol == UDP)


@pytest.mark.parametrize("addresses", [V4, V6], ids=["ipv4", "ipv6"])
def test_clients_of_connections_that_stand_are_told(addresses: tuple[str, str, str]) -> None:
    client, vip, backend = addresses
    told = conntrack._connection(entry(client, vip, backend))
    assert told == Connection((client, 40000), (vip, 80))
    for state in (SYN_SENT, TIME_WAIT):
        assert conntrack._connection(entry(client, vip, backend, state=state)) is None
    assert conntrack._connection(entry(client, vip, backend, UDP)) is None
    association = conntrack._connection(entry(client, vip, backend, SCTP, state=4))
    assert association == Connection((client, 40000), (vip, 80), SCTP, tag=77)


def test_the_kernel_is_asked_for_a_backends_entries_where_it_can_tell_them() -> None:
    both = frozenset({"10.0.1.9", "10.0.1.10", "fd00::9", "fd00::a"})
    families = [question.body[0] for question in conntrack._questions(frozenset(), both)]
    assert families == [socket.AF_INET, socket.AF_INET, socket.AF_INET6]
    assert conntrack._questions(frozenset(), frozenset()) == []
    many = frozenset(f"10.0.1.{number}" for number in range(100))
    assert len(conntrack._questions(many, many)) == 1


@given(st.binary(max_size=200))
def test_whatever_the_kernel_lists_is_read_without_an_error(data: bytes) -> None:
    conntrack._is_doomed(Entry(b"\2\0\0\0" + data), frozenset({"10.0.1.9"}), frozenset({"10.0.1.8"}))
    conntrack._connection(Entry(b"\2\0\0\0" + data))


@pytest.mark.parametrize(
    ("protocol", "state", "over"),
    [(TCP, SYN_SENT, False), (TCP, ESTABLISHED, False), (TCP, TIME_WAIT, True), (TCP, 8, True), (SCTP, 7, False)],
)
def test_a_connection_that_both_ends_finished_is_over(protocol: int, state: int, over: bool) -> None:
    """Its client may have begun another one at the same port, which is not to be ended in its place."""
    assert entry(*V4, protocol, state).is_over is over


def test_a_deletion_names_the_entry_by_its_id() -> None:
    """Another connection between the same two ports has another one."""
    listed = Entry(entry(*V4)._body + attr(12, b"\x01\x02\x03\x04"))
    assert attr(12, b"\x01\x02\x03\x04") in listed.deletion().body
