"""A way through the networks on a real kernel: every step is what the kernel has, and it stops where it is cut."""

from __future__ import annotations

from typing import Any

import pytest
from overlay_lab import Host, Lab
from test_overlay_kernel import NET, VIP, box, endpoint, web_table

pytestmark = pytest.mark.root


@pytest.fixture
def pair(lab: Lab) -> tuple[Lab, Host, Host]:
    """c10 on the first host, c12 on the second behind the VIP of the service web."""
    first, second = lab.hosts
    table = web_table(endpoint(10, first, service=None), endpoint(12, second))
    for host in lab.hosts:
        host.call("apply_table", table)
    first.call("attach", box(10))
    second.call("attach", box(12))
    lab.serve(second.netns("c12"), "c12")
    return lab, first, second


def near(host: Host, target: str, port: int = 80, *, probe: bool = False) -> Any:
    return host.call("trace_source", "c10", target, port, "tcp", probe)


def far(host: Host, hop: Any, port: int = 80) -> Any:
    return host.call("trace_target", "c12", hop, port, "tcp")


def outcomes(steps: list[Any]) -> list[tuple[str, str]]:
    return [(step["step"], step["outcome"]) for step in steps]


def test_a_way_that_goes_through(pair: tuple[Lab, Host, Host]) -> None:
    _lab, first, second = pair
    found = near(first, "web", probe=True)
    assert outcomes(found["steps"]) == [("name", "ok"), ("vip", "ok"), ("backend", "ok"), ("tunnel", "ok")]
    assert VIP in found["steps"][0]["text"]
    (hop,) = found["hops"]
    assert (hop["address"], hop["node_address"], hop["source_address"]) == ("10.0.1.12", second.address, "10.0.1.10")
    assert found["probe"]["outcome"] == "ok"
    assert outcomes(far(second, hop)) == [("interface", "ok"), ("policy", "ok"), ("socket", "ok")]


def test_nothing_listens_there(pair: tuple[Lab, Host, Host]) -> None:
    _lab, first, second = pair
    (hop,) = near(first, "10.0.1.12")["hops"]
    assert outcomes(far(second, hop, 81))[-1] == ("socket", "stop")
    assert near(first, "web", 81, probe=True)["probe"]["outcome"] == "stop"


def test_it_stops_where_the_kernel_was_damaged(pair: tuple[Lab, Host, Host]) -> None:
    _lab, first, second = pair
    (hop,) = near(first, "web")["hops"]
    first.run("ip", "neigh", "del", "10.0.1.12", "dev", "vxlan0", netns=first.overlay_netns(NET))
    found = near(first, "web")
    assert outcomes(found["steps"])[-1] == ("tunnel", "stop")
    assert found["hops"] == []
    first.run("nft", "flush", "ruleset", netns=first.netns("c10"))
    assert ("vip", "stop") in outcomes(near(first, VIP)["steps"])
    second.run("ip", "link", "set", "eth0", "down", netns=second.netns("c12"))
    assert outcomes(far(second, hop))[0] == ("interface", "stop")


def test_names_that_do_not_exist_and_backends_that_are_not_there(pair: tuple[Lab, Host, Host]) -> None:
    lab, first, _second = pair
    assert outcomes(near(first, "nosuch")["steps"]) == [("name", "stop")]
    first.call("apply_table", web_table(endpoint(10, lab.hosts[0], service=None), version=2))
    assert outcomes(near(first, "web")["steps"])[-1] == ("vip", "stop")


def test_a_check_without_repair_changes_nothing(pair: tuple[Lab, Host, Host]) -> None:
    _lab, first, _second = pair
    first.run("ip", "link", "set", "eth0", "mtu", "1000", netns=first.netns("c10"))
    for _ in range(2):
        report = first.call("check", False)
        assert [finding["problems"] for finding in report["findings"]] == [
            ["device eth0 has MTU 1000 in place of 1450"]
        ]
    assert first.call("check", True)["findings"][0]["left"] == []
    report = first.call("check", False)
    assert report["findings"] == []
    assert report["checked"]["sandboxes"] == 1
    assert [(table["name"], table["version"]) for table in report["tables"]] == [("web", 1)]
