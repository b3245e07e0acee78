"""The kernel's list of TCP sockets: which of them are connections from outside on which something is under way."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_overlay.core.tcp_sockets import ESTABLISHED, LISTEN, count_served, question
from pyswarm_overlay.kernel.netlink import NETLINK_SOCK_DIAG, Message, Netlink


def entry(
    state: int = ESTABLISHED,
    address: str = "10.0.1.5",
    port: int = 80,
    queues: tuple[int, int] = (0, 0),
    sent_ms_ago: int = 9000,
    received_ms_ago: int = 2000,
) -> bytes:
    """What the kernel says of one socket: by default, one that a request came on two seconds ago."""
    packed = ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    head = struct.pack("!BBxxHH16s", family, state, port, 54321, packed.ljust(16, b"\0"))
    info = struct.pack("=44xIxxxxI60x", sent_ms_ago, received_ms_ago)
    body = head.ljust(56, b"\0") + struct.pack("=II8x", *queues)
    return body + struct.pack("=HH", 5, 8) + bytes(4) + struct.pack("=HH", 4 + len(info), 2) + info


LISTENS = entry(LISTEN, "0.0.0.0")


def test_connections_to_a_listening_port_count_while_data_may_flow() -> None:
    counted = [state for state in range(1, 13) if count_served([LISTENS, entry(state)])]
    assert counted == [1, 3, 4, 8, 9, 11]


@pytest.mark.parametrize(
    ("socket_entry", "is_served"),
    [
        (entry(), True),
        (entry(sent_ms_ago=2000, received_ms_ago=9000), False),
        (entry(sent_ms_ago=2000, received_ms_ago=2000), False),
        (entry(sent_ms_ago=100, received_ms_ago=9000), True),
        (entry(sent_ms_ago=2000, received_ms_ago=9000, queues=(1, 0)), True),
        (entry(sent_ms_ago=2000, received_ms_ago=9000, queues=(0, 1)), True),
        (entry(sent_ms_ago=2000, received_ms_ago=9000)[:72], True),
    ],
    ids=["unanswered", "answered", "answered at once", "streams", "to be read", "to arrive", "kernel does not say"],
)
def test_a_connection_that_is_only_kept_is_not_waited_for(socket_entry: bytes, is_served: bool) -> None:
    assert count_served([LISTENS, socket_entry]) == is_served


def test_a_connection_that_the_task_opened_does_not_count() -> None:
    assert count_served([LISTENS, entry(port=40000)]) == 0


def test_loopback_does_not_count() -> None:
    for address in ("127.0.0.1", "127.0.0.11", "::1", "::ffff:127.0.0.1"):
        assert count_served([LISTENS, entry(address=address)]) == 0
    for address in ("10.0.1.5", "::ffff:10.0.1.5", "fd00::5"):
        assert count_served([LISTENS, entry(address=address)]) == 1


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    netlink = Netlink(NETLINK_SOCK_DIAG)
    yield netlink
    netlink.close()


def test_the_kernels_own_list_is_understood(netlink: Netlink) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        port = struct.pack("!H", server.getsockname()[1])
        client.sendall(b"a request")
        found = netlink.dump(Message("list sockets", 20, 0, question(socket.AF_INET)))
        ours = [body for body in found if body[4:6] == port]
        assert sorted(body[1] for body in ours) == [ESTABLISHED, LISTEN], "the accepted one and the listener"
        assert count_served(ours) == 0, "over loopback"
        assert count_served([body[:8] + bytes([10]) + body[9:] for body in ours]) == 1


@given(st.lists(st.binary(max_size=300)))
def test_whatever_else_is_passed_over(bodies: list[bytes]) -> None:
    assert count_served(bodies) >= 0


@given(st.binary(max_size=200))
def test_attributes_of_any_kind_do_no_harm(attributes: bytes) -> None:
    assert count_served([LISTENS, entry()[:72] + attributes]) in (0, 1)
