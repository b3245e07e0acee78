"""What names mean to a sandbox."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import dns.message
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay_values import endpoint, service, table

from pyswarm_overlay import TableDelta
from pyswarm_overlay.core import dns_message as codec
from pyswarm_overlay.core.dns_answer import FORWARD, NO_SUCH_NAME, Answer, Decision, View, decide
from pyswarm_overlay.core.tables import TableState
from pyswarm_overlay.core.zone import Zone
from pyswarm_overlay.resolving.link import difference
from pyswarm_overlay.types import ServicePort

FRONT = table(
    endpoint(5, aliases=("db",)),
    endpoint(6, aliases=("db",), ready=False),
    endpoint(7, service_id=None, name="lone", hostname="Lone-Host"),
    services=(service(aliases=("www",)), service(service_id="s2", name="rr", vips=(), endpoint_mode="dnsrr")),
)
BACK = table(endpoint(9, addresses=("10.0.2.9",), name="db"), network_id="n2", name="back", subnets=("10.0.2.0/24",))


def ask(name: str, kind: str = "A", *tables: Any, own: dict[str, tuple[str, ...]] | None = None) -> Decision:
    query = codec.parse(dns.message.make_query(name, kind).to_wire())
    assert isinstance(query, codec.Query)
    view = View([Zone(one) for one in tables or (FRONT,)], own or {})
    return decide(query, view)


def found(decision: Decision) -> list[str]:
    assert isinstance(decision, Answer)
    return [".".join(map(str, data)) for _kind, data in decision.records]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web", ["10.0.1.2"]),
        ("WEB", ["10.0.1.2"]),
        ("www", ["10.0.1.2"]),
        ("web.front", ["10.0.1.2"]),
        ("tasks.web", ["10.0.1.5"]),
        ("tasks.www", ["10.0.1.5"]),
        ("web.5", ["10.0.1.5"]),
        ("web.6", ["10.0.1.6"]),
        ("host5", ["10.0.1.5"]),
        ("lone", ["10.0.1.7"]),
        ("lone-host", ["10.0.1.7"]),
        ("db", ["10.0.1.5", "10.0.1.6"]),
        ("rr", []),
        ("tasks.rr", []),
    ],
)
def test_names_that_exist(name: str, addresses: list[str]) -> None:
    assert found(ask(name)) == addresses


def test_a_known_name_has_no_other_records_and_is_never_forwarded() -> None:
    for kind in ("AAAA", "MX", "TXT", "SRV"):
        assert ask("web", kind) == Answer(())
        assert ask("tasks.web", kind) == Answer(())


@pytest.mark.parametrize("name", ["nosuch", "tasks", "WEBB"])
def test_unknown_single_labels_do_not_exist(name: str) -> None:
    assert ask(name) == NO_SUCH_NAME


@pytest.mark.parametrize("name", ["example.com", "tasks.nosuch", "web.elsewhere", "."])
def test_everything_else_is_forwarded(name: str) -> None:
    assert ask(name) == FORWARD


def test_the_first_network_that_knows_a_name_answers() -> None:
    assert found(ask("db", "A", FRONT, BACK)) == ["10.0.1.5", "10.0.1.6"]
    assert found(ask("db", "A", BACK, FRONT)) == ["10.0.2.9"]
    assert found(ask("db.back", "A", FRONT, BACK)) == ["10.0.2.9"]


def test_dnsrr_gives_ready_tasks() -> None:
    rr = table(endpoint(5), endpoint(6), endpoint(7, ready=False), services=(service(endpoint_mode="dnsrr", vips=()),))
    assert found(ask("web", "A", rr)) == ["10.0.1.5", "10.0.1.6"]


def test_a_service_takes_precedence_over_a_task_of_its_name() -> None:
    assert found(ask("web", "A", table(endpoint(5, name="web")))) == ["10.0.1.2"]


def test_own_names_hold_before_the_table_tells_of_them() -> None:
    own = {"me": ("10.0.1.77",)}
    assert found(ask("me", own=own)) == ["10.0.1.77"]
    assert found(ask("web", own={"web": ("10.0.1.77",)})) == ["10.0.1.2"]


def test_reverse_names() -> None:
    answer = ask("5.1.0.10.in-addr.arpa", "PTR")
    assert isinstance(answer, Answer)
    assert answer.records[0][1] == b"\x03web\x015\x05front\x00"
    vip = ask("2.1.0.10.in-addr.arpa", "PTR")
    assert isinstance(vip, Answer)
    assert vip.records[0][1] == b"\x03web\x05front\x00"
    assert ask("99.1.0.10.in-addr.arpa", "PTR") == NO_SUCH_NAME
    assert ask("8.8.8.8.in-addr.arpa", "PTR") == FORWARD


def test_the_ingress_network_has_no_names() -> None:
    assert ask("web", "A", table(endpoint(5), ingress=True)) == NO_SUCH_NAME


def test_other_classes_are_not_ours() -> None:
    query = codec.parse(dns.message.make_query("web", "TXT", "CH").to_wire())
    assert isinstance(query, codec.Query)
    assert decide(query, View([Zone(FRONT)])) == FORWARD


DUAL = table(
    endpoint(5, slot=1, addresses=("10.0.1.5", "fd00:1::5")),
    endpoint(6, slot=2, addresses=("10.0.1.6",)),
    endpoint(7, slot=2, addresses=("10.0.1.7",), ready=False),
    endpoint(8, slot=3, addresses=("10.0.1.8",), ready=False),
    services=(
        service(
            vips=("10.0.1.2", "fd00:1::2"),
            aliases=("www",),
            ports=(ServicePort(name="Http", target=8080), ServicePort(target=53, protocol="udp")),
        ),
    ),
    subnets=("10.0.1.0/24", "fd00:1::/64"),
)


@pytest.mark.parametrize(
    ("name", "kind", "addresses"),
    [
        ("web", "A", ["10.0.1.2"]),
        ("web", "AAAA", ["fd00:1::2"]),
        ("web", "ANY", ["10.0.1.2", "fd00:1::2"]),
        ("1.web", "A", ["10.0.1.5"]),
        ("1.WEB.front", "AAAA", ["fd00:1::5"]),
        ("1.www", "A", ["10.0.1.5"]),
        ("2.web", "A", ["10.0.1.6"]),
        ("2.web", "AAAA", []),
        ("3.web", "A", ["10.0.1.8"]),
    ],
)
def test_slots_and_both_families(name: str, kind: str, addresses: list[str]) -> None:
    decision = ask(name, kind, DUAL)
    assert isinstance(decision, Answer)
    assert [str(ip_address(data)) for _kind, data in decision.records] == addresses


@pytest.mark.parametrize("name", ["4.web", "0.web", "4.web.front", "99999999999999999999.web", "_no._tcp.web"])
def test_what_a_service_of_ours_does_not_have_is_nobody_elses_business(name: str) -> None:
    assert ask(name, "A", DUAL) == NO_SUCH_NAME


def test_numbers_before_other_names_are_forwarded() -> None:
    assert ask("1.pool.ntp.org", "A", DUAL) == FORWARD
    assert ask("_sip._tcp.example.com", "SRV", DUAL) == FORWARD
    assert ask("_x._y.web", "SRV", DUAL) == FORWARD


def test_reverse_names_of_ipv6() -> None:
    name = str(dns.reversename.from_address("fd00:1::2"))
    answer = ask(name, "PTR", DUAL)
    assert isinstance(answer, Answer)
    assert answer.records[0][1] == b"\x03web\x05front\x00"
    assert ask(str(dns.reversename.from_address("fd00:1::99")), "PTR", DUAL) == NO_SUCH_NAME
    assert ask(str(dns.reversename.from_address("2001:db8::1")), "PTR", DUAL) == FORWARD


def places(name: str, kind: str = "SRV") -> tuple[set[tuple[int, str]], set[str]]:
    """As a client reads the answer: (port, target), and the addresses that came with it."""
    query = codec.parse(dns.message.make_query(name, kind).to_wire())
    assert isinstance(query, codec.Query)
    decision = decide(query, View([Zone(DUAL)]))
    assert isinstance(decision, Answer)
    message = dns.message.from_wire(codec.reply(query, codec.NOERROR, decision.records, more=decision.more))
    found = {(record.port, str(record.target)) for rrset in message.answer for record in rrset}
    return found, {str(record) for rrset in message.additional for record in rrset}


@pytest.mark.parametrize("name", ["_http._tcp.web", "_8080._tcp.web", "_HTTP._TCP.www.front"])
def test_ports_by_name_and_number_lead_to_the_virtual_address(name: str) -> None:
    found, more = places(name)
    assert found == {(8080, "web.front.")}
    assert more == {"10.0.1.2", "fd00:1::2"}


def test_ports_of_tasks_lead_to_every_ready_one() -> None:
    found, more = places("_http._tcp.tasks.web")
    assert found == {(8080, "web.5.front."), (8080, "web.6.front.")}
    assert more == {"10.0.1.5", "fd00:1::5", "10.0.1.6"}
    assert places("_53._udp.web")[0] == {(53, "web.front.")}


def test_a_port_has_no_address() -> None:
    assert ask("_http._tcp.web", "A", DUAL) == Answer(())


RECORDS = st.builds(
    lambda number, name, alias, service_id, slot, ready: endpoint(
        number, name=name, aliases=(alias,), service_id=service_id, slot=slot, ready=ready
    ),
    st.integers(3, 12),
    st.sampled_from(["web", "Web.1", "lone", "db"]),
    st.sampled_from(["db", "cache", "WEB"]),
    st.sampled_from(["s1", "s2", None]),
    st.integers(0, 2),
    st.booleans(),
)
SERVICES = st.builds(
    lambda key, alias, mode: service(service_id=key, name=f"web{key}", aliases=(alias,), endpoint_mode=mode),
    st.sampled_from(["s1", "s2"]),
    st.sampled_from(["db", "www"]),
    st.sampled_from(["vip", "dnsrr"]),
)
DELTAS = st.builds(
    lambda endpoints, services, gone, ended: TableDelta(
        network_id="n1",
        from_version=1,
        version=1,
        upsert_endpoints=tuple({record.endpoint_id: record for record in endpoints}.values()),
        remove_endpoints=tuple(f"t{number}" for number in gone),
        upsert_services=tuple({record.service_id: record for record in services}.values()),
        remove_services=tuple(ended),
    ),
    st.lists(RECORDS, max_size=4),
    st.lists(SERVICES, max_size=2),
    st.lists(st.integers(3, 12), max_size=3),
    st.lists(st.sampled_from(["s1", "s2"]), max_size=1),
)
ASKED = ["web", "web.1", "lone", "db", "cache", "webs1", "tasks.webs2", "1.webs1", "2.www", "host4", "tasks.db"]


@given(st.lists(DELTAS, max_size=12))
def test_a_zone_changed_step_by_step_is_as_one_made_anew(deltas: list[TableDelta]) -> None:
    state = TableState.of(table(endpoint(3), endpoint(4)))
    zone = Zone(state.to_table())
    for delta in deltas:
        after = state.after(delta)
        assert after is not None
        zone.apply(difference(state, after))
        state = after
    fresh = Zone(state.to_table())
    for name in ASKED:
        known, anew = zone.lookup(name), fresh.lookup(name)
        assert (known is None) == (anew is None)
        assert sorted(known or ()) == sorted(anew or ())
    for number in range(2, 13):
        known_name = zone.name_of(f"10.0.1.{number}")
        assert (known_name is None) == (fresh.name_of(f"10.0.1.{number}") is None)
