"""Published ports: what goes together, and what the refusal says."""

from __future__ import annotations

from typing import Any

import pytest

from pyswarm_common.model import IngressPolicy, PortConfig, Protocol, PublishMode
from pyswarm_manager.api.validate.ports import check_port_options


def problems(**changes: Any) -> dict[str, str]:
    return dict(check_port_options(PortConfig(target_port=80, **changes), "ports[0]"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"host_ip": "127.0.0.1"},
        {"host_ip": "2001:db8::1", "proxy_protocol": True},
        {"policy": IngressPolicy.LOCAL},
        {"publish_mode": PublishMode.HOST, "proxy_protocol": True, "host_ip": "0.0.0.0"},
    ],
)
def test_what_goes_together(changes: dict[str, Any]) -> None:
    assert problems(**changes) == {}


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"host_ip": "here"}, "host_ip", "must be an IPv4 or IPv6 address"),
        ({"host_ip": "224.0.0.1"}, "host_ip", "one node's own address"),
        ({"host_ip": "fe80::1"}, "host_ip", "one node's own address"),
        ({"host_ip": "2001:DB8::1"}, "host_ip", "it should be 2001:db8::1"),
        ({"policy": IngressPolicy.LOCAL, "publish_mode": PublishMode.HOST}, "policy", "mode=ingress only"),
        ({"proxy_protocol": True, "protocol": Protocol.UDP}, "proxy_protocol", "udp has none"),
        ({"proxy_protocol": True, "protocol": Protocol.SCTP}, "proxy_protocol", "needs a tcp port"),
    ],
)
def test_what_does_not(changes: dict[str, Any], field: str, reason: str) -> None:
    found = problems(**changes)
    assert set(found) == {f"ports[0].{field}"}
    assert reason in found[f"ports[0].{field}"]
