"""A machine's own networks: predefined ones, and configuration-only ones that its daemon keeps."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pyswarm.v1 import localnet_pb2, types_pb2
from pyswarm_common.errors import AlreadyExists, Forbidden, InvalidArgument, NotFound
from pyswarm_node.local_networks import LocalNetworksServicer


def servicer(directory: Path) -> LocalNetworksServicer:
    numbers = count(1)
    return LocalNetworksServicer(directory, lambda: f"id{next(numbers)}", clock=lambda: 7.0)


async def create(networks: LocalNetworksServicer, name: str, **spec: Any) -> types_pb2.Network:
    wanted = types_pb2.NetworkSpec(name=name, **{"config_only": True, **spec})
    return (await networks.CreateLocalNetwork(localnet_pb2.CreateLocalNetworkRequest(spec=wanted), None)).network


async def names(networks: LocalNetworksServicer) -> list[str]:
    answer = await networks.ListLocalNetworks(localnet_pb2.ListLocalNetworksRequest(), None)
    return [network.spec.name for network in answer.networks]


async def test_configurations_outlive_the_daemon_and_are_removed_by_name(tmp_path: Path) -> None:
    networks = servicer(tmp_path)
    made = await create(
        networks, "cfg", subnets=("10.0.0.0/24",), ip_ranges=("10.0.0.64/26",), options={"parent": "e1"}
    )
    assert (made.id, made.spec.driver, list(made.subnets)) == ("id1", "null", ["10.0.0.0/24"])
    again = servicer(tmp_path)
    assert await names(again) == ["bridge", "cfg", "host", "none"]
    removed = await again.RemoveLocalNetwork(localnet_pb2.RemoveLocalNetworkRequest(network="cfg"), None)
    assert removed.network_id == "id1"
    assert await names(again) == ["bridge", "host", "none"]
    with pytest.raises(NotFound, match="network cfg not found"):
        await again.RemoveLocalNetwork(localnet_pb2.RemoveLocalNetworkRequest(network="cfg"), None)


@pytest.mark.parametrize(
    ("name", "spec", "error", "reason"),
    [
        ("bridge", {}, AlreadyExists, "network with name bridge already exists"),
        ("cfg", {"internal": True}, Forbidden, "configuration network can only contain network specific fields"),
        ("cfg", {"config_only": False}, InvalidArgument, "create it with --config-only"),
        ("cfg", {"options": {"parnt": "eth0"}}, InvalidArgument, "unknown network option 'parnt'"),
        ("cfg", {"subnets": ("10.0.0.1/24",)}, InvalidArgument, "invalid subnet"),
        ("", {}, InvalidArgument, "name"),
    ],
    ids=["taken", "operator", "no config", "option", "subnet", "name"],
)
async def test_what_is_no_configuration_is_refused(
    tmp_path: Path, name: str, spec: dict[str, Any], error: type[Exception], reason: str
) -> None:
    networks = servicer(tmp_path)
    with pytest.raises(error, match=reason):
        await create(networks, name, **spec)
    assert await names(networks) == ["bridge", "host", "none"]


async def test_what_every_machine_has_stays(tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match="host is a pre-defined network and cannot be removed"):
        await servicer(tmp_path).RemoveLocalNetwork(localnet_pb2.RemoveLocalNetworkRequest(network="host"), None)
