"""Network tables: deltas, what follows from a state, derived names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay_values import HERE, THERE, endpoint, service, table

from pyswarm_common.errors import InvalidArgument
from pyswarm_overlay import TableDelta
from pyswarm_overlay.checks import check_table
from pyswarm_overlay.core import names, subnets
from pyswarm_overlay.core.tables import TableState


def test_a_delta_from_another_version_is_refused() -> None:
    state = TableState.of(table(endpoint(5), version=7))
    assert state.after(TableDelta(network_id="n1", from_version=6, version=8)) is None
    assert state.after(TableDelta(network_id="n1", from_version=7, version=8)).version == 8  # type: ignore[union-attr]


numbers = st.sets(st.integers(3, 20))


@given(before=numbers, after=numbers, touched=numbers)
def test_deltas_lead_to_the_same_state_as_the_full_table(before: set[int], after: set[int], touched: set[int]) -> None:
    old = TableState.of(table(*(endpoint(number) for number in sorted(before))))
    wanted = {f"t{number}": endpoint(number, ready=number in touched) for number in after}
    delta = TableDelta(
        network_id="n1",
        from_version=1,
        version=2,
        upsert_endpoints=tuple(wanted.values()),
        remove_endpoints=tuple(f"t{number}" for number in before - after),
    )
    new = old.after(delta)
    assert new is not None
    full = TableState.of(table(*wanted.values(), version=2))
    assert (new.endpoints, new.vips, new.tunnels(THERE)) == (full.endpoints, full.vips, full.tunnels(THERE))
    assert TableState.of(new.to_table()).endpoints == new.endpoints


def test_only_ready_endpoints_of_the_service_stand_behind_its_vip() -> None:
    state = TableState.of(
        table(
            endpoint(5),
            endpoint(4),
            endpoint(6, ready=False),
            endpoint(7, service_id="s2"),
            endpoint(8, service_id=None),
        )
    )
    assert state.vips == {"10.0.1.2": ("10.0.1.4", "10.0.1.5")}


def test_a_vip_without_backends_is_still_there() -> None:
    assert TableState.of(table()).vips == {"10.0.1.2": ()}


def test_dnsrr_services_and_the_ingress_network_have_no_vips() -> None:
    assert TableState.of(table(endpoint(5), services=(service(endpoint_mode="dnsrr"),))).vips == {}
    assert TableState.of(table(endpoint(5), ingress=True)).vips == {}


def test_families_are_not_mixed_behind_a_vip() -> None:
    both = endpoint(5, addresses=("10.0.1.5", "fd00::5"))
    state = TableState.of(table(both, services=(service(vips=("10.0.1.2", "fd00::2")),)))
    assert state.vips == {"10.0.1.2": ("10.0.1.5",), "fd00::2": ("fd00::5",)}


def test_tunnels_lead_to_endpoints_on_other_hosts_only() -> None:
    state = TableState.of(
        table(endpoint(5), endpoint(6, node_address=THERE), endpoint(7, node_address=THERE, mac="02:00:00:00:00:AA"))
    )
    tunnels = state.tunnels(HERE)
    assert tunnels.forwarding == {"02:42:0a:00:01:06": THERE, "02:00:00:00:00:aa": THERE}
    assert tunnels.neighbours == {"10.0.1.6": "02:42:0a:00:01:06", "10.0.1.7": "02:00:00:00:00:aa"}


def test_a_withdrawn_backend_is_gone_only_once_its_endpoint_is() -> None:
    both = TableState.of(table(endpoint(5), endpoint(6)))
    withdrawn = TableState.of(table(endpoint(5), endpoint(6, ready=False)))
    one, none = TableState.of(table(endpoint(5))), TableState.of(table())
    assert both.turned_over(None) == both.turned_over(both) == (frozenset(), frozenset())
    assert withdrawn.turned_over(both) == ({"10.0.1.6"}, frozenset())
    assert one.turned_over(withdrawn) == (frozenset(), {"10.0.1.6"})
    assert none.turned_over(one) == ({"10.0.1.5"}, {"10.0.1.5"})
    assert none.turned_over(both) == ({"10.0.1.5", "10.0.1.6"}, {"10.0.1.5", "10.0.1.6"})
    assert both.turned_over(withdrawn) == (frozenset(), frozenset())


def test_an_address_with_a_new_owner_is_not_who_it_was() -> None:
    before, after = TableState.of(table(endpoint(5))), TableState.of(table(endpoint(5, endpoint_id="t99")))
    assert after.turned_over(before) == (frozenset(), {"10.0.1.5"})


@given(st.text(min_size=1), st.text(min_size=1))
def test_interface_names_fit(sandbox: str, network: str) -> None:
    for name in (
        names.network_port(sandbox, network),
        names.gateway_port("abcd", sandbox),
        names.ingress_device("abcd"),
    ):
        assert len(name) <= 15


@pytest.mark.parametrize("bad", ["", ".", "..", "../x", "a/b", "a b", "-x", "x" * 129, "a\n"])
def test_ids_that_would_be_dangerous_file_names_are_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        names.check_id("sandbox", bad)


@pytest.mark.parametrize("bad", ["", "PS", "toolong", "1a", "a-"])
def test_bad_prefixes_are_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        names.check_prefix(bad)


@pytest.mark.parametrize(
    "changes",
    [
        {"vni": 0},
        {"vni": 1 << 24},
        {"network_id": "../x"},
        {"endpoints": (endpoint(5, addresses=("10.0.1.5/24",)),)},
        {"endpoints": (endpoint(5, node_address=""),)},
        {"endpoints": (endpoint(5, mac="02:42"),)},
        {"services": (service(vips=("web",)),)},
    ],
)
def test_tables_with_wrong_entries_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        check_table(table(**changes))


def test_a_gateway_subnet_that_somebody_routes_is_passed_over() -> None:
    assert subnets.choose("172.18.0.0/16", ["10.0.0.0/24", "172.18.0.5/32", "fd00::/64"]) == "172.18.0.0/16"
    assert subnets.choose("172.18.0.0/16", ["172.18.0.0/16"]) == "172.19.0.0/16"
    assert subnets.choose("172.18.0.0/16", ["172.16.0.0/12"]) == "192.168.0.0/20"
    assert subnets.choose("172.18.0.0/16", ["0.0.0.0/1", "128.0.0.0/1"]) is None
