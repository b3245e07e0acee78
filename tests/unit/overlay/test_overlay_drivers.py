"""Addresses that a node gives out, what a network is there, the rules between bridges, what plugins may answer."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common.errors import AlreadyExists, NotFound, Unavailable
from pyswarm_overlay.core.local import is_local, localised
from pyswarm_overlay.core.tables import TableState
from pyswarm_overlay.drivers import bridge_rules, plugin_discovery
from pyswarm_overlay.drivers import plugin_protocol as protocol
from pyswarm_overlay.drivers.addresses import Pool, free_address, pools_of
from pyswarm_overlay.drivers.bridge_rules import BridgeRule
from pyswarm_overlay.drivers.configs import ConfigNetwork, Configs
from pyswarm_overlay.drivers.plugin_client import Plugin
from pyswarm_overlay.drivers.settings import settings_of
from pyswarm_overlay.types import EndpointRecord, NetworkTable, ServiceRecord


def table(**changes: object) -> NetworkTable:
    settings: dict[str, object] = {"network_id": "n", "name": "net", "vni": 0, "subnets": (), "driver": "bridge"}
    return NetworkTable(**{**settings, **changes})  # type: ignore[arg-type]


@given(
    st.integers(24, 30),
    st.lists(st.booleans(), max_size=60),
    st.sets(st.integers(1, 5), max_size=3),
)
def test_no_address_is_given_twice_and_all_are_used(length: int, moves: list[bool], reserved: set[int]) -> None:
    """True takes an address, False gives the oldest back."""
    pool = Pool.of(f"10.1.2.0/{length}", "", [f"10.1.2.{number}" for number in reserved])
    size = 2 ** (32 - length) - 2
    usable = size - len([number for number in reserved if number <= size])
    held: list[str] = []
    last = 0
    for takes in moves:
        if not takes:
            held = held[1:]
            continue
        found = free_address(pool, held.__contains__, last)
        assert (found is None) == (len(held) == usable)
        if found is not None:
            assert found not in held
            assert int(found.partition("/")[0].rpartition(".")[2]) not in reserved
            assert found.endswith(f"/{length}")
            held.append(found)
            last = 0x0A010200 + int(found.partition("/")[0].rpartition(".")[2])


def test_an_address_that_was_given_up_is_not_the_next_ones() -> None:
    pool = Pool.of("10.1.2.0/29", "", ["10.1.2.1"])
    first = free_address(pool, lambda _text: False)
    assert first == "10.1.2.2/29"
    assert free_address(pool, lambda _text: False, after=0x0A010202) == "10.1.2.3/29"
    assert free_address(pool, lambda _text: False, after=0x0A010206) == "10.1.2.2/29", "and round again"


def test_a_range_bounds_what_is_given_and_each_range_goes_to_its_subnet() -> None:
    four, six = pools_of(("10.1.0.0/16", "fd00:1::/64"), ("fd00:1::100/120", "10.1.4.0/30"), ("10.1.4.1",), ())
    assert free_address(four, lambda _text: False) == "10.1.4.0/16"
    assert free_address(four, {"10.1.4.0/16"}.__contains__) == "10.1.4.2/16", "the gateway is not given"
    assert free_address(six, lambda _text: False) == "fd00:1::100/64"
    assert free_address(Pool.of("10.1.0.0/31", "", ()), lambda _text: False) == "10.1.0.0/31"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"driver": "overlay"}, False),
        ({"driver": ""}, False),
        ({"driver": "macvlan"}, False),
        ({"driver": "acme"}, False),
        ({"driver": "bridge"}, True),
        ({"driver": "macvlan", "config_from": "cfg"}, True),
        ({"driver": "acme", "ipam_driver": "acme"}, True),
        ({"driver": "acme", "ipam_driver": "default"}, False),
    ],
)
def test_who_gives_the_addresses(changes: dict[str, object], expected: bool) -> None:
    assert is_local(table(**changes)) is expected


def test_a_node_knows_the_endpoints_it_gave_addresses_to() -> None:
    known = tuple(
        EndpointRecord(endpoint_id=key, name=key, node_address="192.0.2.1", service_id="s", ready=True)
        for key in ("here", "there")
    )
    state = TableState.of(table(endpoints=known, services=(ServiceRecord(service_id="s", name="web"),)))
    local = localised(state, {"here": ("172.17.0.2",)})
    assert {key: record.addresses for key, record in local.endpoints.items()} == {"here": ("172.17.0.2",), "there": ()}
    assert localised(local, {}).endpoints["here"].addresses == (), "taken back"


def test_a_lent_configuration_says_what_the_network_is_here() -> None:
    lent = ConfigNetwork(config_id="1", name="cfg", options={"parent": "eth1"}, subnets=("10.0.0.0/24",))
    named = table(driver="macvlan", config_from="cfg", options={"parent": "eth0"}, internal=True)
    settings = settings_of(named, lent)
    assert (settings.options, settings.subnets, settings.internal) == ({"parent": "eth1"}, ("10.0.0.0/24",), True)
    with pytest.raises(NotFound, match="configuration network cfg was not found on this node"):
        settings_of(named, None)
    assert settings_of(table(options={"a": "b"}), None).options == {"a": "b"}


def test_configurations_are_kept_by_name_and_found_by_id(tmp_path: Path) -> None:
    configs = Configs(tmp_path / "configs")
    configs.add(ConfigNetwork(config_id="abc1", name="one"))
    configs.add(ConfigNetwork(config_id="abc2", name="two"))
    with pytest.raises(AlreadyExists, match="network with name one already exists"):
        configs.add(ConfigNetwork(config_id="abc3", name="one"))
    assert Configs(tmp_path / "configs").get("abc2").name == "two"
    with pytest.raises(NotFound):
        configs.get("abc")
    assert configs.remove("one").config_id == "abc1"
    assert configs.named("one") is None
    next((tmp_path / "configs").glob("*.json")).write_bytes(b"{torn")
    assert configs.all() == []


def test_bridges_are_kept_apart() -> None:
    commands = bridge_rules.document("ps_drivers", "ps-g*", [BridgeRule("b1", False), BridgeRule("b2", True)], 4789)
    assert bridge_rules.shape({"nftables": commands}) == [
        ("== b1",),
        ("== b2",),
        (),
        (),
        ("== b1", "!= b1"),
        ("== b1", "!= b1"),
        ("== b2", "== ps-g*"),
        ("== ps-g*", "== b2"),
        ("== b2", "== b1"),
        ("== b1", "== b2"),
    ]
    assert [command for command in bridge_rules.document("t", "ps-g*", [], 4789) if "rule" in str(command)] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("InterfaceName", "SrcName", "Gateway", "GatewayIPv6", "StaticRoutes", "Destination", "NextHop", "Err", "Pool")


ANSWERS = st.binary(max_size=60) | st.dictionaries(st.sampled_from(FIELDS), JSON).map(msgspec.json.encode)


@given(st.integers(100, 599), ANSWERS)
def test_any_answer_of_a_plugin_is_read_or_refused(status: int, body: bytes) -> None:
    plugin = Plugin("acme", Path("/nowhere"))
    refusals: list[str] = []
    for kind in (protocol.JoinAnswer, protocol.EndpointAnswer, protocol.PoolAnswer, protocol.AddressSpaces):
        try:
            answer = plugin._answer("NetworkDriver.Join", status, body, kind)
            if isinstance(answer, protocol.JoinAnswer):
                joined = protocol.checked_joined(answer, "acme")
                assert 0 < len(joined.source) <= 15
            if isinstance(answer, protocol.PoolAnswer):
                protocol.checked_pool(answer, "acme")
        except Unavailable as error:
            refusals.append(str(error))
    assert all(refusal.startswith("network plugin acme: ") for refusal in refusals)


def test_what_a_join_means() -> None:
    body = (
        b'{"InterfaceName":{"SrcName":"veth7","DstPrefix":"eth"},"Gateway":"10.0.0.1","GatewayIPv6":"","StaticRoutes":'
        b'[{"Destination":"10.9.0.0/16","RouteType":1},{"Destination":"10.8.0.0/16","RouteType":0,"NextHop":"10.0.0.9"}]}'
    )
    answer = Plugin("acme", Path("/x"))._answer("NetworkDriver.Join", 200, body, protocol.JoinAnswer)
    assert protocol.checked_joined(answer, "acme") == protocol.Joined(
        source="veth7", gateways=("10.0.0.1",), routes=(("10.9.0.0/16", ""), ("10.8.0.0/16", "10.0.0.9"))
    )


@given(st.binary(max_size=40))
def test_files_that_name_plugins_are_read_or_passed_over(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "acme.json").write_bytes(content)
        (directory / "acme.spec").write_bytes(content)
        places = plugin_discovery.PluginPlaces(directory / "none", (directory,))
        assert plugin_discovery.names(places) == ["acme"]
        with contextlib.suppress(NotFound):
            assert plugin_discovery.find(places, "acme").socket.is_absolute()


async def test_a_plugin_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gone.spec").write_text(f"unix://{tmp_path}/gone.sock\n")
    (tmp_path / "far.spec").write_text("tcp://192.0.2.1:99\n")
    places = plugin_discovery.PluginPlaces(tmp_path / "run", (tmp_path,))
    assert plugin_discovery.names(places) == ["far", "gone"]
    assert await asyncio.wait_for(plugin_discovery.discover(places), 5) == ()
    with pytest.raises(Unavailable, match=r"network plugin gone: Plugin\.Activate cannot be asked at"):
        await plugin_discovery.find(places, "gone").call("Plugin.Activate", {}, protocol.Capabilities)
