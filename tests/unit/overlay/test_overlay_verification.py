"""Verification: what is compared, what is looked at when, and that only what was seen twice is repaired."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm_overlay.core import comparison, facts, ruleset, ways
from pyswarm_overlay.core.comparison import WantedNetwork
from pyswarm_overlay.core.facts import LinkFacts, NeighbourFacts, Observed, RouteFacts
from pyswarm_overlay.core.plan import WantedInterface
from pyswarm_overlay.core.suspects import PAUSE_S, SETTLE_S, Place, Round, Suspects
from pyswarm_overlay.verification import Parts, Surroundings, Verification

TUNNEL = (7, "192.0.2.1", 4789, False, True)
MAC, FAR_MAC = "02:42:0a:00:01:05", "02:42:0a:00:01:09"


def link(index: int, name: str, kind: str, **changes: Any) -> LinkFacts:
    settings: dict[str, Any] = {"mac": "02:42:ff:ff:ff:fe", "mtu": 1450, "master": 0, "up": True, "arp": True}
    return LinkFacts(index=index, name=name, kind=kind, localnet=False, **{**settings, **changes})


WANTED = WantedNetwork(
    mtu=1450,
    tunnel=TUNNEL,
    forwarding={FAR_MAC: "192.0.2.2"},
    neighbours={"10.0.1.9": FAR_MAC},
)
LINKS = {"vxlan0": link(2, "vxlan0", "vxlan", tunnel=TUNNEL)}
ENTRIES = (
    NeighbourFacts(2, "", FAR_MAC, "192.0.2.2", permanent=True, of_device=True),
    NeighbourFacts(2, "10.0.1.9", FAR_MAC, "", permanent=True, of_device=False),
)


def network(links: dict[str, LinkFacts] | None = None, entries: tuple[NeighbourFacts, ...] = ENTRIES) -> list[str]:
    return comparison.network_problems(WANTED, Observed(LINKS if links is None else links, neighbours=entries))


def test_a_network_as_wanted_has_no_problems() -> None:
    assert network() == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vxlan0", {"up": False}),
        ("vxlan0", {"mtu": 1400}),
        ("vxlan0", {"arp": False}),
        ("vxlan0", {"master": 9}),
        ("vxlan0", {"tunnel": (8, *TUNNEL[1:])}),
    ],
)
def test_one_setting_that_differs_is_one_problem(name: str, changes: dict[str, Any]) -> None:
    problems = network({**LINKS, name: replace(LINKS[name], **changes)})
    assert len(problems) == 1
    assert name in problems[0]


@pytest.mark.parametrize("name", sorted(LINKS))
def test_a_missing_device_is_found(name: str) -> None:
    assert any(name in problem for problem in network({key: one for key, one in LINKS.items() if key != name}))


@pytest.mark.parametrize("number", range(len(ENTRIES)))
def test_a_missing_entry_is_found(number: int) -> None:
    assert len(network(entries=ENTRIES[:number] + ENTRIES[number + 1 :])) == 1


@pytest.mark.parametrize(
    "extra",
    [
        NeighbourFacts(2, "", "02:00:00:00:00:01", "192.0.2.9", permanent=True, of_device=True),
        NeighbourFacts(2, "10.0.1.77", FAR_MAC, "", permanent=True, of_device=False),
    ],
)
def test_an_entry_that_leads_elsewhere_is_found(extra: NeighbourFacts) -> None:
    assert len(network(entries=(*ENTRIES, extra))) == 1


def test_devices_that_somebody_made_there_are_strays_but_not_the_kernels_own() -> None:
    made = {name: link(9, name, name) for name in ("veth", "bridge", "vxlan", "macvlan")}
    assert network({**LINKS, **made}) == [f"device {name} is a stray" for name in made]
    assert network({**LINKS, "sit0": link(9, "sit0", "sit")}) == []


INTERFACE = WantedInterface("eth0", "p1", "n", MAC, 1450, ("10.0.1.5/24",), gateways=("10.0.1.1",))
INSIDE = {"lo": link(1, "lo", ""), "eth0": link(2, "eth0", "veth", mac=MAC)}
ROUTES = (
    RouteFacts(facts.MAIN_TABLE, "10.0.1.0/24", "", 2, 1, 0),
    RouteFacts(facts.LOCAL_TABLE, "10.0.1.5/32", "", 2, 2, 0),
    RouteFacts(facts.MAIN_TABLE, "0.0.0.0/0", "10.0.1.1", 2, 1, 0),
)
ADDRESSES = (facts.AddressFacts(2, "10.0.1.5/24", ""),)


def sandbox(
    routes: tuple[RouteFacts, ...] = ROUTES, addresses: tuple[facts.AddressFacts, ...] = ADDRESSES
) -> list[str]:
    return comparison.sandbox_problems((INTERFACE,), Observed(INSIDE, addresses, routes))


def test_a_sandbox_as_wanted_has_no_problems() -> None:
    assert sandbox() == []


@pytest.mark.parametrize("number", range(len(ROUTES)))
def test_a_missing_route_is_found(number: int) -> None:
    assert len(sandbox(ROUTES[:number] + ROUTES[number + 1 :])) == 1


def test_a_route_that_steals_an_address_is_found_and_one_over_a_containers_own_tunnel_is_its_own() -> None:
    assert len(sandbox((*ROUTES, RouteFacts(facts.MAIN_TABLE, "10.0.1.9/32", "", 0, 6, 0)))) == 1
    assert sandbox((*ROUTES, RouteFacts(facts.MAIN_TABLE, "0.0.0.0/0", "10.8.0.1", 9, 1, 0))) == []
    assert sandbox((*ROUTES, RouteFacts(facts.MAIN_TABLE, "192.168.0.0/16", "10.8.0.1", 9, 1, 0))) == []


def test_addresses_are_exactly_those_wanted() -> None:
    assert sandbox(addresses=()) == ["10.0.1.5/24 is missing on eth0"]
    extra = facts.AddressFacts(2, "10.0.1.6/24", "")
    assert sandbox(addresses=(*ADDRESSES, extra)) == ["10.0.1.6/24 is a stray on eth0"]


def test_a_suspect_is_due_once_and_not_more_often_than_once_per_pause() -> None:
    suspects, place = Suspects(), ("sandbox", "a")
    for now in (0.0, 0.1, 0.2):
        suspects.suspect(place, now)
    assert suspects.take(SETTLE_S - 0.01) == []
    assert suspects.take(SETTLE_S) == [place]
    suspects.suspect(place, SETTLE_S + 0.1)
    assert suspects.next_due() == SETTLE_S + PAUSE_S
    suspects.keep([])
    assert suspects.take(100.0) == []


@given(st.integers(1, 300), st.lists(st.floats(0, 3), max_size=40))
def test_rounds_reach_everything_in_turn_and_are_bounded(count: int, passed: list[float]) -> None:
    places: list[Place] = [("sandbox", str(number)) for number in range(count)]
    turns, taken = Round(period_s=30, per_second=20), []
    for step in passed:
        now = turns.take(places, step)
        assert len(now) <= 20
        taken += now
    assert len(taken) <= 20 * sum(passed) + 1
    assert taken[:count] == places[: len(taken)]


class Part:
    """Kernel state that a test damages."""

    def __init__(self, *problems: list[str]) -> None:
        self.problems = list(problems)
        self.repairs = 0
        self.stubborn = False

    @property
    def place(self) -> Literal["host"]:
        return "host"

    def places(self) -> Collection[str]:
        return [""]

    async def observe(self, key: str) -> list[str]:
        return self.problems.pop(0) if len(self.problems) > 1 else self.problems[0]

    async def repair(self, key: str) -> None:
        self.repairs += 1
        if not self.stubborn:
            self.problems = [[]]

    def size(self) -> dict[str, int]:
        return {"things": 3}


def verification(part: Part) -> Verification:
    async def nothing() -> list[str]:
        return []

    async def number(place: Place) -> int | None:
        return None

    around = Surroundings(number, lambda place, sender: False, lambda place: "here", nothing)
    return Verification(Parts((part,), ()), around)


async def test_what_is_seen_once_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyswarm_overlay.verification._LOOK_AGAIN_S", 0.0)
    part = Part(["passing"], [])
    report = await verification(part).check(repair=True)
    assert (report.findings, part.repairs, report.checked) == ((), 0, {"things": 3})


async def test_what_is_seen_twice_is_repaired_or_only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyswarm_overlay.verification._LOOK_AGAIN_S", 0.0)
    part = Part(["broken"])
    told = await verification(part).check(repair=False)
    assert [(one.problems, one.left) for one in told.findings] == [(("broken",), ("broken",))]
    assert part.repairs == 0
    repaired = await verification(part).check(repair=True)
    assert [(one.problems, one.is_repaired, one.name) for one in repaired.findings] == [(("broken",), True, "here")]
    assert repaired.repairs == 1


async def test_what_cannot_be_repaired_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyswarm_overlay.verification._LOOK_AGAIN_S", 0.0)
    part = Part(["broken"])
    part.stubborn = True
    report = await verification(part).check(repair=True)
    assert [one.left for one in report.findings] == [("broken",)]


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_dumps_of_anything_are_read_without_failing(bodies: list[bytes]) -> None:
    facts.links(bodies)
    facts.addresses(bodies)
    facts.neighbours(bodies)
    ways.listeners(bodies, 80)


@given(st.binary(max_size=300))
def test_answers_of_anything_are_read_without_failing(data: bytes) -> None:
    found = ways.dns_answer(data, int.from_bytes(data[:2], "big"))
    assert found is None or len(found[1]) <= len(data) // 4


def test_an_answer_is_read() -> None:
    question = ways.dns_question("web", ways.A, 7)
    record = b"\xc0\x0c" + struct.pack("!HHIH", ways.A, 1, 1, 4) + bytes([10, 0, 1, 2])
    answer = struct.pack("!HHHHHH", 7, 0x8180, 1, 1, 0, 0) + question[12:] + record
    assert ways.dns_answer(answer, 7) == (0, ["10.0.1.2"])
    assert ways.dns_answer(answer, 8) is None


@pytest.mark.parametrize(
    ("address", "waiting", "served"),
    [
        ("10.0.0.1", ["0.0.0.0"], True),
        ("10.0.0.1", ["::"], True),
        ("10.0.0.1", ["127.0.0.1"], False),
        ("10.0.0.1", ["10.0.0.1"], True),
        ("fd00::1", ["0.0.0.0"], False),
        ("fd00::1", ["::"], True),
    ],
)
def test_who_takes_what_comes(address: str, waiting: list[str], served: bool) -> None:
    assert ways.is_served_at(address, waiting) is served


def test_rules_are_equal_but_for_counters_and_the_numbers_of_nameless_sets() -> None:
    def attr(kind: int, payload: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)

    def rule(name: bytes, extra: bytes) -> bytes:
        lookup = attr(1, attr(1, b"lookup\0") + attr(2, attr(1, name) + attr(2, b"\0\0\0\1")))
        return b"\2\0\0\0" + attr(1, b"t\0") + attr(2, b"c\0") + attr(3, extra) + attr(4, lookup)

    def shape(name: str, elements: frozenset[object], handle: bytes = b"1234") -> ruleset.TableShape:
        sets = {(2, "t", name): ruleset.SetShape((), by_packets=False, elements=elements)}
        return ruleset.shapes({(2, "t"): 0}, [], [rule(name.encode() + b"\0", handle)], sets)[2, "t"]

    one = shape("__map0", frozenset({1}))
    assert ruleset.differences(one, shape("__map7", frozenset({1}), b"9999"), "t") == []
    assert ruleset.differences(one, shape("__map0", frozenset({2})), "t") == [
        "nftables table t: rules of chain c: not as wanted"
    ]
    assert ruleset.differences(one, None, "t") == ["nftables table t is missing"]
