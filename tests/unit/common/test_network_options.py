"""Options of network drivers: what is let in, what it means, and what the refusal says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_common import network_options as options

DRIVERS = ("overlay", "bridge", "macvlan")
KEYS = (
    options.MTU,
    options.ENCRYPTED,
    options.VXLAN_IDS,
    options.BRIDGE_NAME,
    options.ENABLE_ICC,
    options.ENABLE_MASQUERADE,
    options.HOST_BINDING,
    options.MACVLAN_MODE,
    options.PARENT,
)


@pytest.mark.parametrize(
    ("driver", "key", "value"),
    [
        ("", options.ENCRYPTED, ""),
        ("overlay", options.ENCRYPTED, "true"),
        ("overlay", options.MTU, "9000"),
        ("overlay", options.VXLAN_IDS, "5000"),
        ("bridge", options.BRIDGE_NAME, "br-app"),
        ("bridge", options.ENABLE_ICC, "false"),
        ("bridge", options.ENABLE_MASQUERADE, "F"),
        ("bridge", options.HOST_BINDING, "127.0.0.1"),
        ("macvlan", options.PARENT, "eth0.10"),
        ("macvlan", options.MACVLAN_MODE, "passthru"),
        ("acme", "whatever", "it likes"),
    ],
)
def test_what_a_driver_knows_is_let_in(driver: str, key: str, value: str) -> None:
    assert list(options.problems(driver, {key: value})) == []


@pytest.mark.parametrize(
    ("driver", "key", "value", "reason"),
    [
        ("overlay", options.MTU, "67", "from 68 to 65535"),
        ("overlay", options.MTU, "000070099900", "from 68 to 65535"),
        ("overlay", options.ENCRYPTED, "maybe", "true or false"),
        ("overlay", options.VXLAN_IDS, "4097,4098", "one VXLAN network identifier"),
        ("overlay", options.VXLAN_IDS, "16777216", "from 1 to 16777215"),
        ("bridge", options.BRIDGE_NAME, "a-name-too-long-for-linux", "at most 15 characters"),
        ("bridge", options.BRIDGE_NAME, "../x", "name of a network interface"),
        ("bridge", options.ENABLE_ICC, "", "true or false"),
        ("bridge", options.HOST_BINDING, "::1", "IPv4 address"),
        ("macvlan", options.MACVLAN_MODE, "ipvlan", "bridge, private, vepa or passthru"),
        ("macvlan", options.PARENT, "", "name of a network interface"),
    ],
)
def test_a_value_that_a_driver_cannot_use_is_refused(driver: str, key: str, value: str, reason: str) -> None:
    [problem] = options.problems(driver, {key: value})
    assert f"invalid value '{value}' of network option {key}" in problem
    assert reason in problem


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    [problem] = options.problems("macvlan", {"encrypted": ""})
    assert problem == (
        "unknown network option 'encrypted': the options of driver macvlan are "
        "com.docker.network.driver.mtu, macvlan_mode, parent"
    )


def test_a_lent_configuration_may_be_of_any_driver() -> None:
    assert list(options.problems("", {options.PARENT: "eth0", options.ENABLE_ICC: "1"}, config_only=True)) == []
    [problem] = options.problems("", {"parnt": "eth0"}, config_only=True)
    assert "unknown network option 'parnt': the options of networks are" in problem


def test_what_options_mean() -> None:
    assert options.overlay_options({"encrypted": "", options.VXLAN_IDS: "77"}) == options.OverlayOptions(
        mtu=None, is_encrypted=True, vni=77
    )
    assert not options.is_encrypted({"encrypted": "false"})
    assert options.bridge_options({options.ENABLE_ICC: "false", options.MTU: "1400"}) == options.BridgeOptions(
        mtu=1400, has_icc=False
    )
    assert options.macvlan_options({"parent": "eth1", "macvlan_mode": "vepa"}) == options.MacvlanOptions(
        parent="eth1", mode="vepa"
    )


@given(st.sampled_from(DRIVERS), st.dictionaries(st.sampled_from(KEYS) | st.text(), st.text(), max_size=8))
def test_odd_options_are_judged_one_by_one_and_never_raise(driver: str, given_options: dict[str, str]) -> None:
    together = list(options.problems(driver, given_options))
    alone = [p for key in sorted(given_options) for p in options.problems(driver, {key: given_options[key]})]
    assert together == alone
    options.overlay_options(given_options)
    options.bridge_options(given_options)
    options.macvlan_options(given_options)
