"""Who is let in, from tables; and that a change of policy holds exactly the difference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from overlay_values import endpoint, service, table

from pyswarm_overlay.core import nft_attributes as nft
from pyswarm_overlay.core import policy_wire
from pyswarm_overlay.core.policy import Places, Policy, lost, policy_of
from pyswarm_overlay.core.tables import TableState

DB = "s-db"
PLACES = Places({"n1": "eth0", "n2": "eth1", "ing": "eth2"}, "eth3")


def network(number: int, *allow_from: str) -> TableState:
    """web has an address of either family, one of its tasks is not ready; db is what the policy is of."""
    return TableState.of(
        table(
            endpoint(3, addresses=(f"10.0.{number}.3", f"fd00:{number}::3")),
            endpoint(4, addresses=(f"10.0.{number}.4",), ready=False),
            endpoint(5, addresses=(f"10.0.{number}.5",), service_id="s-other"),
            endpoint(6, addresses=(f"10.0.{number}.6",), service_id=None),
            endpoint(9, addresses=(f"10.0.{number}.9",), service_id=DB),
            network_id=f"n{number}",
            services=(
                service(),
                service(service_id="s-other", name="other", vips=()),
                service(service_id=DB, name="db", vips=(), allow_from=allow_from),
            ),
        )
    )


def ingress(*allow_from: str) -> TableState:
    own = service(service_id=DB, name="db", vips=(), allow_from=allow_from)
    return TableState.of(table(endpoint(7, service_id=DB), network_id="ing", ingress=True, services=(own,)))


def test_without_sources_everybody_is_let_in() -> None:
    assert policy_of(DB, PLACES, [network(1), ingress()]) is None
    assert policy_of("unknown", PLACES, [network(1, "web")]) is None


def test_tasks_of_named_services_are_let_in_on_the_networks_that_both_share() -> None:
    found = policy_of(DB, PLACES, [network(1, "web"), network(2, "web"), ingress("web")])
    assert found is not None
    v4 = {("eth0", "10.0.1.3"), ("eth0", "10.0.1.4"), ("eth1", "10.0.2.3"), ("eth1", "10.0.2.4")}
    assert found.sources == v4 | {("eth0", "fd00:1::3"), ("eth1", "fd00:2::3")}
    assert found.open == frozenset()


def test_none_and_unknown_names_let_nobody_in() -> None:
    for word in ("none", "nobody-is-called-this"):
        assert policy_of(DB, PLACES, [network(1, word)]) == Policy(frozenset(), frozenset())


def test_ingress_opens_the_way_out_and_the_ingress_network() -> None:
    found = policy_of(DB, PLACES, [network(1, "ingress", "db"), ingress("ingress", "db")])
    assert found == Policy(frozenset({("eth0", "10.0.1.9")}), frozenset({"eth2", "eth3"}))


def test_who_has_lost_permission_is_told_by_address_as_far_as_that_goes() -> None:
    before = Policy(frozenset({("eth0", "10.0.1.3"), ("eth0", "10.0.1.4")}), frozenset())
    after = Policy(frozenset({("eth0", "10.0.1.3")}), frozenset())
    open_after = Policy(after.sources, frozenset({"eth1"}))
    assert not lost(before, after)("10.0.1.3")
    assert not lost(before, after)("127.0.0.1")
    assert lost(before, after)("10.0.1.4")
    assert lost(None, after)("192.0.2.9")
    assert lost(before, open_after)("10.0.1.4")
    assert not lost(before, open_after)("192.0.2.9")
    assert not lost(None, open_after)("10.0.1.4")


SOURCES = st.frozensets(
    st.tuples(
        st.sampled_from(["eth0", "eth1"]),
        st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)),
    ),
    max_size=20,
)
POLICIES = st.builds(Policy, SOURCES, st.frozensets(st.sampled_from(["eth1", "eth2"])))


def elements(parts: list[nft.Part], kind: int) -> dict[str, int]:
    """How many elements of each set the messages name, by the places of their keys."""
    counts: dict[str, int] = {}
    for message, _flags, body in parts:
        if message == kind:
            name = next(name for name in policy_wire.SETS if nft.text(2, name) in body)
            counts[name] = counts.get(name, 0) + body.count(nft.text(1, "ps_policy") + nft.text(2, name))
    return counts


@given(POLICIES, POLICIES)
def test_a_change_is_the_difference_and_none_is_empty(before: Policy, after: Policy) -> None:
    assert policy_wire.change("ps_policy", before, before) == []
    parts = policy_wire.change("ps_policy", before, after)
    old, new = policy_wire.keys_of(before), policy_wire.keys_of(after)
    added = {name for name in policy_wire.SETS if new[name] - old[name]}
    removed = {name for name in policy_wire.SETS if old[name] - new[name]}
    assert set(elements(parts, nft.NEWELEM)) == added
    assert set(elements(parts, nft.DELELEM)) == removed
    body = b"".join(part[2] for part in parts)
    for name in policy_wire.SETS:
        assert all(key in body for key in new[name] ^ old[name])
