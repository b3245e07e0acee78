"""Which drivers, IPAM drivers and configurations a network of the swarm may have."""

from __future__ import annotations

import pytest

from pyswarm_common.errors import NotFound
from pyswarm_common.model import NetworkSpec, Node, NodeDescription, Plugin
from pyswarm_manager.api.validate import check_network_spec
from pyswarm_manager.api.validate.driver import check_plugins


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(name="n", driver="bridge", options={"com.docker.network.bridge.enable_icc": "false"}),
        NetworkSpec(name="n", driver="macvlan", options={"parent": "eth0.10", "macvlan_mode": "vepa"}),
        NetworkSpec(name="n", driver="macvlan", config_from="cfg"),
        NetworkSpec(name="n", driver="acme/driver:v1", options={"any": "thing"}),
        NetworkSpec(name="n", driver="bridge", ipam_driver="acme", ipam_options={"pool": "7"}),
        NetworkSpec(name="n", driver="", options={"encrypted": ""}),
    ],
    ids=["bridge", "macvlan", "lent", "plugin", "ipam", "encrypted"],
)
def test_what_may_be(spec: NetworkSpec) -> None:
    assert list(check_network_spec(spec)) == []


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        (NetworkSpec(name="n", driver="host"), "driver", 'only one instance of "host" network is allowed'),
        (NetworkSpec(name="n", driver="null"), "driver", 'only one instance of "null" network is allowed'),
        (NetworkSpec(name="n", driver="a b"), "driver", "it must be the name of a driver or plugin"),
        (NetworkSpec(name="n", driver="bridge", ingress=True), "ingress", "it must be an overlay"),
        (NetworkSpec(name="n", config_only=True), "config_only", "create it on each node"),
        (NetworkSpec(name="n", driver="bridge", options={"parent": "eth0"}), "options", "unknown network option"),
        (NetworkSpec(name="n", ipam_driver="acme"), "ipam_driver", "overlay networks have the default IPAM driver"),
        (NetworkSpec(name="n", driver="x", ipam_driver="null"), "ipam_driver", "containers need addresses"),
        (NetworkSpec(name="n", ipam_options={"a": "b"}), "ipam_options", "name one with --ipam-driver"),
        (NetworkSpec(name="n", config_from="cfg"), "config_from", "one for all nodes"),
        (
            NetworkSpec(name="n", driver="macvlan", config_from="cfg", subnets=("10.0.0.0/24",)),
            "config_from",
            "user specified configurations are not supported if the network depends on a configuration network",
        ),
    ],
    ids=range(11),
)
def test_what_may_not_be(spec: NetworkSpec, field: str, reason: str) -> None:
    found = [(path, sentence) for path, sentence in check_network_spec(spec) if path == field]
    assert len(found) == 1
    assert reason in found[0][1]


def test_a_driver_that_no_node_has_is_refused() -> None:
    node = Node(id="n", description=NodeDescription(plugins=(Plugin("Network", "acme"), Plugin("Ipam", "pool"))))
    check_plugins(NetworkSpec(name="n", driver="acme", ipam_driver="pool"), [node])
    check_plugins(NetworkSpec(name="n", driver="bridge"), [])
    with pytest.raises(NotFound, match="could not find plugin acme in v1 plugin registry: plugin not found on any"):
        check_plugins(NetworkSpec(name="n", driver="acme"), [])
    with pytest.raises(NotFound, match="could not find plugin acme"):
        check_plugins(NetworkSpec(name="n", driver="bridge", ipam_driver="acme"), [node])
