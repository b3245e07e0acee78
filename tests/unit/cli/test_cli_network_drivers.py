"""`network create` with drivers, and a machine's own networks in the lists."""

from __future__ import annotations

from typing import Any

import pytest

from pyswarm.v1 import types_pb2
from pyswarm_cli.local_networks import passes
from pyswarm_cli.parse.networks import network_spec
from pyswarm_cli.views import networks as view
from pyswarm_common.errors import InvalidArgument

NOTHING: dict[str, Any] = {
    **dict.fromkeys(("subnet", "gateway", "ip_range", "aux_address", "ipam_opt", "label", "opt"), ()),
    **dict.fromkeys(("internal", "attachable", "ingress", "config_only", "ipv6"), False),
    "ipv4": True,
    "driver": "",
    "config_from": "",
    "ipam_driver": "default",
    "scope": None,
}


def spec(**given: Any) -> types_pb2.NetworkSpec:
    return network_spec("net", {**NOTHING, **given})


def test_options_become_a_specification() -> None:
    assert spec().driver == "overlay"
    made = spec(
        driver="macvlan", opt=("parent=eth0", "flag"), ipam_driver="acme", ipam_opt=("a=b",), scope="swarm", ipv6=True
    )
    assert (made.driver, dict(made.options), made.ipv6) == ("macvlan", {"parent": "eth0", "flag": ""}, True)
    assert (made.ipam_driver, dict(made.ipam_options)) == ("acme", {"a": "b"})
    alone = spec(ipv4=False, ipv6=True, subnet=("fd00:5::/64",))
    assert (alone.ipv6, list(alone.subnets)) == (False, ["fd00:5::/64"])  # asked for both, it would get one of IPv4
    lent = spec(config_only=True, opt=("parent=eth0",), subnet=("10.0.0.0/24",), scope="local")
    assert (lent.config_only, lent.driver, list(lent.subnets)) == (True, "", ["10.0.0.0/24"])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"config_only": True, "internal": True}, "configuration network can only contain network specific fields"),
        ({"config_only": True, "scope": "swarm"}, "configuration network can only contain network specific fields"),
        ({"config_only": True, "config_from": "x"}, "cannot depend on another configuration network"),
        ({"scope": "local"}, "networks of one node alone are configuration-only ones"),
        ({"ipv4": False, "ipv6": True}, "a network without IPv4 needs --subnet with an IPv6 one"),
        ({"ipv4": False, "subnet": ("fd00:5::/64", "10.1.0.0/24")}, "and none of IPv4"),
    ],
    ids=["internal", "swarm", "both", "local", "no family", "both families"],
)
def test_what_does_not_go_together(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        spec(**given)


def network(name: str, **changes: Any) -> types_pb2.Network:
    return types_pb2.Network(id=f"id{name}", spec=types_pb2.NetworkSpec(name=name, **changes))


def test_lists_tell_whose_a_network_is() -> None:
    known = [network("bridge", driver="bridge"), network("cfg", driver="null", config_only=True), network("web")]
    rows = [(row["Name"], row["Driver"], row["Scope"]) for row in map(view.row, known)]
    assert rows == [("bridge", "bridge", "local"), ("cfg", "null", "local"), ("web", "overlay", "swarm")]

    def names(**wanted: list[str]) -> list[str]:
        return [item.spec.name for item in known if view.is_wanted(item, wanted) and passes(item, wanted)]

    assert names(type=["custom"]) == ["cfg", "web"]
    assert names(scope=["local"]) == ["bridge", "cfg"]
    assert names(driver=["overlay", "null"]) == ["cfg", "web"]
    assert names(name=["b"]) == ["bridge", "web"]
    assert names(label=["a=b"]) == []
    assert names(id=["idc"]) == ["cfg"]


def test_lists_tell_the_families() -> None:
    known = [network("a"), network("b", ipv6=True), network("c", subnets=["fd00:5::/64"])]
    assert [(row["IPv4"], row["IPv6"]) for row in map(view.row, known)] == [(True, False), (True, True), (False, True)]
