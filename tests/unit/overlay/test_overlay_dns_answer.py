"""What names mean to a sandbox."""

from __future__ import annotations

from typing import Any

import dns.message
import pytest
from overlay_values import endpoint, service, table

from pyswarm_overlay.core import dns_message as codec
from pyswarm_overlay.core.dns_answer import FORWARD, NO_SUCH_NAME, Answer, Decision, View, decide
from pyswarm_overlay.core.zone import Zone

FRONT = table(
    endpoint(5, aliases=("db",)),
    endpoint(6, aliases=("db",), ready=False),
    endpoint(7, service_id=None, name="lone", hostname="Lone-Host"),
    services=(service(aliases=("www",)), service(service_id="s2", name="rr", vips=(), endpoint_mode="dnsrr")),
)
BACK = table(endpoint(9, addresses=("10.0.2.9",), name="db"), network_id="n2", name="back", subnets=("10.0.2.0/24",))


def ask(
    name: str, kind: str = "A", *tables: Any, own: dict[str, tuple[str, ...]] | None = None
) -> Decision:
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


def test_dnsrr_gives_ready_tasks_in_turn() -> None:
    rr = table(endpoint(5), endpoint(6), endpoint(7, ready=False), services=(service(endpoint_mode="dnsrr", vips=()),))
    assert found(ask("web", "A", rr, turn=0)) == ["10.0.1.5", "10.0.1.6"]
    assert found(ask("web", "A", rr, turn=1)) == ["10.0.1.6", "10.0.1.5"]


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
    assert decide(query, View([Names(TableState.of(FRONT))]), 0) == FORWARD
