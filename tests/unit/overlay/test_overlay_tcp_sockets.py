"""The kernel's list of TCP sockets: which of them are connections from outside."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_overlay.core.tcp_sockets import LISTEN, count_inbound, question
from pyswarm_overlay.kernel.netlink import NETLINK_SOCK_DIAG, Message, Netlink


def entry(state: int, address: str = "10.0.1.5", port: int = 80) -> bytes:
    """What the kernel says of one socket, with the rest of the structure after it."""
    packed = ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return struct.pack("!BBxxHH16s", family, state, port, 54321, packed) + bytes(48)


LISTENS = entry(LISTEN, "0.0.0.0")


def test_connections_to_a_listening_port_count_while_data_may_flow() -> None:
    counted = [state for state in range(1, 13) if count_inbound([LISTENS, entry(state)])]
    assert counted == [1, 3, 4, 8, 9, 11]


def test_a_connection_that_the_task_opened_does_not_count() -> None:
    assert count_inbound([LISTENS, entry(1, port=40000)]) == 0


def test_loopback_does_not_count() -> None:
    for address in ("127.0.0.1", "127.0.0.11", "::1", "::ffff:127.0.0.1"):
        assert count_inbound([LISTENS, entry(1, address)]) == 0
    for address in ("10.0.1.5", "::ffff:10.0.1.5", "fd00::5"):
        assert count_inbound([LISTENS, entry(1, address)]) == 1


def test_the_kernels_own_list_is_understood() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        netlink = Netlink(NETLINK_SOCK_DIAG)
        found = netlink.dump(Message("list sockets", 20, 0, question(socket.AF_INET)))
        netlink.close()
        port = struct.pack("!H", server.getsockname()[1])
        ours = [body for body in found if body[4:6] == port]
        assert sorted(body[1] for body in ours) == [1, LISTEN], "the accepted one and the listener"
        assert count_inbound(ours) == 0, "over loopback"
        assert count_inbound([body[:8] + bytes([10]) + body[9:] for body in ours]) == 1


@given(st.lists(st.binary(max_size=80)))
def test_whatever_else_is_passed_over(bodies: list[bytes]) -> None:
    assert count_inbound(bodies) >= 0
