"""Ports at one address, in ranges, of local tasks only, with the PROXY protocol: what is typed, and what is shown."""

from __future__ import annotations

import pytest

from pyswarm_cli.parse.ports import ports
from pyswarm_cli.views import services
from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import IngressPolicy, PortConfig, Protocol, PublishMode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080:80", [PortConfig(target_port=80, published_port=8080, host_ip="127.0.0.1")]),
        (
            "[2001:DB8::0:1]:53:53/udp",
            [PortConfig(protocol=Protocol.UDP, target_port=53, published_port=53, host_ip="2001:db8::1")],
        ),
        ("127.0.0.1::80", [PortConfig(target_port=80, host_ip="127.0.0.1")]),
        ("8000-8001:80", [PortConfig(target_port=80, published_port=number) for number in (8000, 8001)]),
        ("0:80", [PortConfig(target_port=80)]),
        (
            "published=8000-8001,target=80-81,mode=host,host_ip=::1",
            [
                PortConfig(
                    target_port=80 + more, published_port=8000 + more, publish_mode=PublishMode.HOST, host_ip="::1"
                )
                for more in (0, 1)
            ],
        ),
        ("published=0,target=80", [PortConfig(target_port=80)]),
        (
            "published=80,target=80,policy=local,proxy-protocol=true",
            [PortConfig(target_port=80, published_port=80, policy=IngressPolicy.LOCAL, proxy_protocol=True)],
        ),
        ("target=80,host-ip=[::1],proxy_protocol=0", [PortConfig(target_port=80, host_ip="::1")]),
    ],
)
def test_what_is_ours_in_a_port(text: str, expected: list[PortConfig]) -> None:
    assert ports(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1.2.3.4.5:80:80", "not an IP address"),
        ("::1:80:80", r"IPv6 addresses as \[ADDRESS\]"),
        ("[::1:80", r"IPv6 addresses as \[ADDRESS\]"),
        ("8000-8002:80-81", "the same length, or one target"),
        ("published=8000-8002,target=80-81", "the same length, or one target"),
        ("target=80,policy=near", "choose spread, local"),
        ("target=80,proxy-protocol=yes", "choose true, 1, false, 0"),
        ("target=80,host_ip=localhost", "not an IP address"),
    ],
)
def test_what_is_wrong_in_it_is_named(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        ports(text)


def test_an_address_is_shown_before_its_port() -> None:
    known = [
        PortConfig(target_port=80, published_port=8080),
        PortConfig(target_port=81, published_port=8081, host_ip="127.0.0.1"),
        PortConfig(target_port=82, published_port=8082, host_ip="::1"),
    ]
    assert services.ports(known, PublishMode.INGRESS) == "*:8080->80/tcp, 127.0.0.1:8081->81/tcp, [::1]:8082->82/tcp"
