"""The kernel's list of TCP sockets: which of them are connections from outside."""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_overlay.core.tcp_sockets import count_inbound

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
LISTENS = "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1"


def line(local: str, state: str, port: str = "0050") -> str:
    return f"   1: {local}:{port} 0A00000A:D431 {state} 00000000:00000000 00:00000000 00000000     0        0 2 1"


def test_connections_to_a_listening_port_count_while_data_may_flow() -> None:
    states = {"01": 1, "02": 0, "03": 1, "04": 1, "05": 0, "06": 0, "07": 0, "08": 1, "09": 1, "0B": 1}
    for state, counted in states.items():
        assert count_inbound([HEAD, LISTENS, line("0501000A", state)]) == counted, state


def test_a_connection_that_the_task_opened_does_not_count() -> None:
    assert count_inbound([HEAD, LISTENS, line("0501000A", "01", port="D432")]) == 0


def test_loopback_does_not_count() -> None:
    mapped = "0000000000000000FFFF0000"
    for local in ("0100007F", f"{mapped}0100007F", "00000000000000000000000001000000"):
        assert count_inbound([LISTENS, line(local, "01")]) == 0
    assert count_inbound([LISTENS, line(f"{mapped}0501000A", "01")]) == 1
    assert count_inbound([LISTENS, line("000080FE00000000FF4202420500007F", "01")]) == 1, "an IPv6 address that ends so"


def test_the_kernels_own_list_is_understood() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        with open("/proc/self/net/tcp", encoding="ascii") as file:  # noqa: PTH123 - as the kernel gives it
            lines = file.read().splitlines()
        port = f":{server.getsockname()[1]:04X} "
        moved = [each.replace("0100007F", "0501000A") for each in lines if port in each]
        assert count_inbound(moved) == 1


@given(st.lists(st.text()))
def test_whatever_else_is_passed_over(lines: list[str]) -> None:
    assert count_inbound(lines) >= 0
