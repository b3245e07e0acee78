"""What a node may say of itself: whatever is let in can be read by the planner and by the other nodes."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.errors import InvalidArgument
from pyswarm_common.model import NodeDescription, TunnelKey
from pyswarm_manager.dispatcher.core.descriptions import check_description
from pyswarm_manager.store.network_claims import block

ADDRESSES = st.ip_addresses().map(str)
SUBNETS = st.builds("{}/{}".format, ADDRESSES, st.integers(-1, 140))


def test_what_a_node_usually_says_is_let_in() -> None:
    routes = ("10.0.0.0/8", "192.0.2.7/32", "fd00::/64")
    described = NodeDescription(
        data_path_address="fd00::1", routed_subnets=routes, tunnel_keys=(TunnelKey(bytes(32), 51820, 1),)
    )
    check_description(described, "192.0.2.1")
    check_description(NodeDescription(), "")


@pytest.mark.parametrize("route", ["0.0.0.0/0", "::/0", "10.0.0.1/8", "10.0.0.0/33", "garbage", "", "fe80::%eth0/64"])
def test_a_node_routes_subnets(route: str) -> None:
    with pytest.raises(InvalidArgument, match="no subnet"):
        check_description(NodeDescription(routed_subnets=("192.0.2.0/24", route)), "192.0.2.1")


@pytest.mark.parametrize("address", ["node1", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0", "192.0.2.1/24"])
def test_a_node_is_at_an_address(address: str) -> None:
    for described, own in ((NodeDescription(data_path_address=address), ""), (NodeDescription(), address)):
        with pytest.raises(InvalidArgument, match="no address"):
            check_description(described, own)


@pytest.mark.parametrize(
    "key", [TunnelKey(b"short", 51820, 1), TunnelKey(bytes(32), 0, 1), TunnelKey(bytes(32), 70000)]
)
def test_a_tunnel_key_is_one(key: TunnelKey) -> None:
    with pytest.raises(InvalidArgument, match="tunnel key"):
        check_description(NodeDescription(tunnel_keys=(key,)), "192.0.2.1")


@given(st.lists(st.text(max_size=50) | SUBNETS | ADDRESSES, max_size=5), st.text(max_size=50) | ADDRESSES)
def test_what_is_let_in_can_be_read(routes: list[str], address: str) -> None:
    try:
        check_description(NodeDescription(routed_subnets=tuple(routes), data_path_address=address), "")
    except InvalidArgument:
        return
    assert all(block(route) for route in routes)
    assert not address or ip_address(address).packed
