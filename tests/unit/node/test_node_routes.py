"""What a node says of its own routes."""

from __future__ import annotations

import asyncio
import ipaddress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.v1.types_pb2 import NodeDescription as NodeDescriptionMessage
from pyswarm_node import routes
from pyswarm_node.routes import MAX_BYTES, is_ours, parse_route, parse_route6, told, watch_routes

_HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (_HEAD, None),
        ("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0", ("eth0", ip_network("0.0.0.0/0"))),
        ("eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0", ("eth0", ip_network("192.0.2.0/24"))),
        ("tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0", ("tun0", ip_network("10.0.0.0/8"))),
        ("ps-g1\t050012AC\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0", None),  # a single address
        ("*\t0000020A\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0", None),  # unreachable
        ("eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FF00FF\t0\t0\t0", None),  # host bits
    ],
)
def test_lines_of_ipv4(line: str, expected: object) -> None:
    assert parse_route(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"fd00{'0' * 28} 40 {'0' * 32} 00 {'0' * 32} 100 1 0 00000001     eth0", ("eth0", ip_network("fd00::/64"))),
        (f"fd00{'0' * 27}5 80 {'0' * 32} 00 {'0' * 32} 0 1 0 80200001       lo", None),
        (f"fd01{'0' * 28} 20 {'0' * 32} 00 {'0' * 32} 100 1 0 00200200       lo", None),
        ("", None),
    ],
)
def test_lines_of_ipv6(line: str, expected: object) -> None:
    assert parse_route6(line) == expected


@given(st.text(max_size=200))
def test_any_line_is_read_or_passed_over(line: str) -> None:
    for parse in (parse_route, parse_route6):
        found = parse(line)
        assert found is None or isinstance(found[1], ipaddress.IPv4Network | ipaddress.IPv6Network)


def test_what_is_told_is_merged_bounded_and_in_one_order() -> None:
    subnets = [*map(ip_network, ("10.1.1.0/24", "10.1.0.0/24", "10.1.0.7/32", "0.0.0.0/0", "fe80::/64", "fd00::/64"))]
    subnets += [ip_network(text) for text in ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "ff00::/8", "::/0")]
    assert told(subnets) == told(reversed(subnets)) == ("10.1.0.0/23", "fd00::/64")
    many = [ip_network((0x0A000000 + (index << 9), 24)) for index in range(2000)]
    found = told([*many, ip_network("172.16.0.0/12")])
    assert 100 < len(found) < len(many)
    assert NodeDescriptionMessage(routed_subnets=found).ByteSize() <= MAX_BYTES
    assert "172.16.0.0/12" in found  # the largest stay


def test_our_own_interfaces_do_not_count() -> None:
    assert is_ours("ps-ing")
    assert not is_ours("psi0")


async def test_a_change_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([("10.0.0.0/8",), ("10.0.0.0/8",), ("10.0.0.0/8", "fd00::/64")])
    done, told_times = asyncio.Event(), []

    def read() -> tuple[str, ...]:
        try:
            return next(answers)
        except StopIteration:
            done.set()
            return ("10.0.0.0/8", "fd00::/64")

    monkeypatch.setattr(routes, "routed_subnets", read)
    loop = asyncio.get_running_loop()
    watching = asyncio.create_task(watch_routes(lambda: told_times.append(loop.time()), period_s=0.001))
    try:
        async with asyncio.timeout(10):
            await done.wait()
    finally:
        watching.cancel()
    assert len(told_times) == 1


@pytest.mark.root
def test_this_machine_has_an_address_of_its_own_among_them() -> None:
    assert all(str(ip_network(text)) == text for text in routes.routed_subnets())
