"""Addresses in one form; a listening socket of both families."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.addresses import family_name, plain_address
from pyswarm_common.listening import listening_socket


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("FD00:0::1", "fd00::1"),
        ("192.0.2.1", "192.0.2.1"),
        ("n1", "n1"),
        ("", ""),
    ],
)
def test_one_form_for_each_address(text: str, expected: str) -> None:
    assert plain_address(text) == expected


@given(st.one_of(st.text(), st.ip_addresses().map(str)))
def test_a_plain_address_stays_as_it_is(text: str) -> None:
    assert plain_address(plain_address(text)) == plain_address(text)


def test_the_family_by_name() -> None:
    assert [family_name(address) for address in ("192.0.2.1", "fd00::1")] == ["IPv4", "IPv6"]


def test_everywhere_by_ipv6_is_everywhere_by_ipv4_too() -> None:
    with listening_socket("::", 0) as server:
        port = server.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=5):
                arrived, _ = server.accept()
                arrived.close()


def test_one_address_is_listened_on_alone() -> None:
    with listening_socket("::1", 0) as server, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.getsockname()[1]), timeout=5)
