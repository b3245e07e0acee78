"""A sandbox's VIPs: which it sees, and the messages that write them."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay_values import endpoint, service, table

from pyswarm_overlay.core import nft_timeouts, nft_wire, rules
from pyswarm_overlay.core.affinity import chosen
from pyswarm_overlay.core.names import mac_of
from pyswarm_overlay.core.tables import TableState

VIP4, VIP6 = "10.0.1.2", "fd00::2"
BOTH = {"vips": (VIP4, VIP6)}
IP, IP6 = 2, 10


def dual(number: int) -> tuple[str, str]:
    return f"10.0.1.{number}", f"fd00::{number}"


def state_of(**changes: object) -> TableState:
    endpoints = [endpoint(number, addresses=dual(number)) for number in (5, 6, 7)]
    return TableState.of(table(*endpoints, services=(service(**{**BOTH, **changes}),)))


def families(parts: list[nft_wire.Part]) -> set[int]:
    return {family for family, *_ in parts}


def walk(data: bytes) -> list[tuple[int, int, int]]:
    """(length, flags, sequence) of every message; the whole must be made of messages."""
    found, offset = [], 0
    while offset < len(data):
        length, _kind, flags, sequence, _pid = struct.unpack_from("=IHHII", data, offset)
        assert length % 4 == 0
        assert length >= 16
        found.append((length, flags, sequence))
        offset += length
    assert offset == len(data)
    return found


def test_a_sandbox_sees_the_vips_of_its_families() -> None:
    state = state_of()
    assert state.vips_seen_by(["10.0.1.9/24"]) == {VIP4: ("10.0.1.5", "10.0.1.6", "10.0.1.7")}
    assert state.vips_seen_by(["fd00::9/64"]) == {VIP6: ("fd00::5", "fd00::6", "fd00::7")}
    assert set(state.vips_seen_by(["10.0.1.9/24", "fd00::9/64"])) == {VIP4, VIP6}
    assert state.vips_seen_by([]) == {}


def test_with_affinity_it_sees_one_backend_which_follows_from_its_address() -> None:
    state = state_of(session_affinity="client_ip")
    mine = ["10.0.1.9/24", "fd00::9/64"]
    seen = state.vips_seen_by(mine)
    assert seen == {
        VIP4: (chosen("10.0.1.9", state.vips[VIP4]),),
        VIP6: (chosen("fd00::9", state.vips[VIP6]),),
    }
    assert state_of(session_affinity="client_ip").vips_seen_by(mine) == seen
    others = {state.vips_seen_by([f"10.0.1.{number}/24"])[VIP4] for number in range(20, 60)}
    assert len(others) == 3


def test_with_affinity_and_no_backend_it_is_refused() -> None:
    nobody = table(services=(service(session_affinity="client_ip"),))
    assert TableState.of(nobody).vips_seen_by(["10.0.1.9/24"]) == {VIP4: ()}


@given(st.lists(st.ip_addresses(v=4).map(str), unique=True, min_size=1, max_size=50), st.text())
def test_rotation_keeps_order_and_members(backends: list[str], seed: str) -> None:
    turned = nft_wire.rotated(backends, seed)
    start = turned.index(backends[0])
    assert turned[start:] + turned[:start] == backends


def test_clients_begin_at_different_backends() -> None:
    backends = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
    first = Counter(nft_wire.rotated(backends, f"sandbox{number}")[0] for number in range(400))
    assert set(first) == set(backends)
    assert min(first.values()) > 50


@given(st.sampled_from((4, 6)), st.integers(0, 1500), st.booleans())
def test_batches_are_well_formed(version: int, count: int, exists: bool) -> None:
    start = "10.1.0.0" if version == 4 else "fd00::"
    vip = VIP4 if version == 4 else VIP6
    backends = [start[:-1] + str(number % 250) if version == 4 else f"fd00::{number:x}" for number in range(count)]
    parts = nft_wire.put_vip("t", "seed", vip, backends, exists=exists)
    assert families(parts) == {IP if version == 4 else IP6}
    data, last = nft_wire.batch(parts, 100)
    messages = walk(data)
    assert [sequence for _length, _flags, sequence in messages] == list(range(100, last + 2))
    assert [sequence for _length, flags, sequence in messages if flags & 4] == [last]


def test_ipv6_has_a_table_only_where_the_sandbox_has_an_address() -> None:
    vips = {VIP4: ("10.0.1.5",), VIP6: ("fd00::5",)}
    assert families(nft_wire.sandbox_table("t", "s", vips, (1, 2), fresh=True)) == {IP}
    assert families(nft_wire.sandbox_table("t", "s", vips, (1, 2), fresh=True, ipv6=True)) == {IP, IP6}
    removed = nft_wire.without_ipv6_table("t")
    assert [(family, kind) for family, kind, *_ in removed] == [(IP6, 0), (IP6, 2)]  # made to be removed


def test_chains_of_different_vips_have_different_names() -> None:
    vips = ["10.0.1.2", "10.0.12.0", "fd00::2:1", "fd00:2::1", "fd00::21"]
    assert len({nft_wire.vip_chain(vip) for vip in vips}) == len(vips)


def test_wanted_rules_of_both_families() -> None:
    vips = {VIP4: ("10.0.1.5", "10.0.1.6"), VIP6: ("fd00::5",)}
    one, two = (rules.wanted_sandbox("s", vips, (1, 2), ipv6=ipv6) for ipv6 in (False, True))
    assert one.counts == {"output": 3, "vip_10_0_1_2": 2}
    assert two.counts == {"output": 4, "vip_10_0_1_2": 2, "vip_fd00__2": 1}
    assert two.targets["vip_fd00__2"] == ("fd00::5",)


def test_times_have_tables_of_their_own() -> None:
    parts = nft_timeouts.timeout_tables("times", ipv6=True, fresh=True)
    assert families(parts) == {IP, IP6}
    walk(nft_wire.batch(parts, 1)[0])
    assert all(b"times\0" in body for _family, _kind, _flags, body in parts)
    assert nft_timeouts.IDLE_S * 1000 < 1 << 31  # ticks, where there are a thousand a second


@pytest.mark.parametrize(
    ("addresses", "mac"),
    [
        (("10.0.1.5", "fd00::5"), "02:42:0a:00:01:05"),
        (("fd00::5", "10.0.1.5"), "02:42:0a:00:01:05"),
        (("10.0.1.5/24",), "02:42:0a:00:01:05"),
    ],
)
def test_a_mac_follows_from_the_ipv4_address_wherever_it_stands(addresses: tuple[str, ...], mac: str) -> None:
    assert mac_of(addresses) == mac


def test_an_endpoint_with_ipv6_alone_has_a_mac_of_its_own() -> None:
    macs = {mac_of((f"fd00::{number:x}/64",)) for number in range(1000)}
    assert len(macs) == 1000
    assert {int(mac[:2], 16) & 3 for mac in macs} == {2}  # administered locally, of one station
    assert mac_of(("fd00::5/64",)) == mac_of(("fd00::5",)) == mac_of(("fd00:0::5",))
