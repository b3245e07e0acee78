"""What the text of an HTTP or TCP probe means, and that no text does more than be refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.probe_targets import HttpTarget, TcpTarget, http_target, tcp_target


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://:8080/health", HttpTarget("", 8080, "/health")),
        ("http:///", HttpTarget("", 80, "/")),
        ("https://:8443", HttpTarget("", 8443, "/", is_tls=True)),
        ("http://localhost/x?deep=1", HttpTarget("127.0.0.1", 80, "/x?deep=1")),
        ("http://[::1]:81/", HttpTarget("::1", 81, "/")),
    ],
)
def test_urls(url: str, target: HttpTarget) -> None:
    assert http_target(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://:21/",
        ":8080",
        "http://web:80/",
        "http://:0/",
        "http://:99999/",
        "http://a@:80/",
        "http://:80/ x",
        "http://:80/#a",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid health probe"):
        http_target(url)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (":8080", TcpTarget("", 8080)),
        ("8080", TcpTarget("", 8080)),
        ("127.0.0.1:1", TcpTarget("127.0.0.1", 1)),
        ("[::1]:65535", TcpTarget("::1", 65535)),
    ],
)
def test_ports(text: str, target: TcpTarget) -> None:
    assert tcp_target(text) == target


@pytest.mark.parametrize("text", ["", ":", ":0", ":65536", "web:80", "80:", ":8o"])
def test_ports_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="health probe"):
        tcp_target(text)


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda text: f"http://{text}"))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    for parse in (http_target, tcp_target):
        try:
            target = parse(text)
        except InvalidArgument:
            continue
        assert 1 <= target.port <= 65535
        assert not target.address or ipaddress.ip_address(target.address)
        if isinstance(target, HttpTarget):
            assert target.path.startswith("/")
            assert not any(character.isspace() for character in target.path)
