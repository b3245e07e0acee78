"""Which address is advertised: docker's rules, docker's words."""

from __future__ import annotations

import json

import pytest

from pyswarm_common.errors import InvalidArgument
from pyswarm_node.addresses import (
    Interface,
    choose_advertised,
    listen_address,
    names_port,
    parse_interfaces,
    split_host_port,
)

ONE = (Interface("eth0", ("192.0.2.1", "2001:db8::1")),)
TWO = (*ONE, Interface("eth1", ("198.51.100.7",)))


@pytest.mark.parametrize(
    ("text", "interfaces", "expected"),
    [
        ("", ONE, ("192.0.2.1", 2377)),
        ("10.0.0.9", TWO, ("10.0.0.9", 2377)),
        ("10.0.0.9:3000", TWO, ("10.0.0.9", 3000)),
        ("eth1", TWO, ("198.51.100.7", 2377)),
        ("eth1:3000", TWO, ("198.51.100.7", 3000)),
        ("2001:db8::5", ONE, ("2001:db8::5", 2377)),
        ("[2001:db8::5]:3000", ONE, ("2001:db8::5", 3000)),
        ("2001:DB8:0::5", ONE, ("2001:db8::5", 2377)),
        ("[2001:db8::5]", ONE, ("2001:db8::5", 2377)),
        ("::ffff:192.0.2.1", ONE, ("192.0.2.1", 2377)),
        ("", (Interface("eth0", ("2001:db8::1",)),), ("2001:db8::1", 2377)),
    ],
)
def test_the_advertised_address(text: str, interfaces: tuple[Interface, ...], expected: tuple[str, int]) -> None:
    assert choose_advertised(text, interfaces) == expected


@pytest.mark.parametrize(
    ("text", "interfaces", "words"),
    [
        ("", TWO, "multiple addresses on different interfaces (192.0.2.1 on eth0 and 198.51.100.7 on eth1)"),
        ("", (), "could not find the system's IP address"),
        ("", (Interface("eth0", ("192.0.2.1", "192.0.2.2")),), "multiple addresses on interface eth0"),
        ("wlan7", ONE, 'could not find network interface or address "wlan7"'),
        ("0.0.0.0", ONE, "must be an address that other nodes can reach"),
        ("10.0.0.9:0", ONE, "the port must be a number"),
        ("10.0.0.9:65535", ONE, "the port must be a number"),
        ("10.0.0.9:x", ONE, "the port must be a number"),
        ("::", ONE, "must be an address that other nodes can reach"),
        ("fe80::1", ONE, "must be an address that other nodes can reach"),
        ("ff02::1", ONE, "must be an address that other nodes can reach"),
        ("2001:db8::5:99999", ONE, "too many colons in address"),
    ],
)
def test_what_cannot_be_advertised(text: str, interfaces: tuple[Interface, ...], words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        choose_advertised(text, interfaces)
    assert words in str(refused.value)


def test_the_listen_address() -> None:
    assert listen_address("", TWO, "192.0.2.1") == "0.0.0.0:2377"
    assert listen_address("", TWO, "2001:db8::1") == "[::]:2377"
    assert listen_address("eth1", TWO, "192.0.2.1") == "198.51.100.7:2377"
    assert listen_address("eth0:4000", TWO, "2001:db8::1") == "[2001:db8::1]:4000"
    assert listen_address("192.0.2.1:4000", TWO, "192.0.2.1") == "192.0.2.1:4000"
    assert listen_address("[2001:db8::1]:4000", TWO, "2001:db8::1") == "[2001:db8::1]:4000"


def test_an_interface_gives_the_address_of_the_family_that_is_looked_for() -> None:
    assert choose_advertised("eth0", ONE, like="2001:db8::7")[0] == "2001:db8::1"
    assert choose_advertised("eth0", ONE, like="192.0.2.7")[0] == "192.0.2.1"
    assert choose_advertised("eth1", TWO, like="2001:db8::7")[0] == "198.51.100.7"


@pytest.mark.parametrize(
    ("text", "expected"), [("eth0", False), ("2001:db8::1", False), ("[2001:db8::1]:9", True), ("eth0:9", True)]
)
def test_whether_a_port_was_given(text: str, expected: bool) -> None:
    assert names_port(text) is expected


def test_host_and_port() -> None:
    assert split_host_port("::1", 5) == ("::1", 5)
    assert split_host_port("[::1]:9", 5) == ("::1", 9)
    assert split_host_port("n1", 5) == ("n1", 5)


def test_interfaces_without_loopback_and_our_own() -> None:
    links = [
        {"ifname": "lo", "flags": ["LOOPBACK"], "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {
            "ifname": "ps-g1a2b3c4",
            "flags": [],
            "addr_info": [{"local": "172.18.0.1", "scope": "global", "family": "inet"}],
        },
        {
            "ifname": "eth0",
            "flags": ["UP"],
            "addr_info": [
                {"local": "fe80::1", "scope": "link", "family": "inet6"},
                {"local": "2001:db8::aaaa", "scope": "global", "family": "inet6", "temporary": True},
                {"local": "2001:db8::bbbb", "scope": "global", "family": "inet6", "deprecated": True},
                {"local": "2001:db8::1", "scope": "global", "family": "inet6"},
                {"local": "192.0.2.1", "scope": "global", "family": "inet"},
            ],
        },
    ]
    assert parse_interfaces(json.dumps(links).encode()) == ONE
