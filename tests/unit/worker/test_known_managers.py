"""Whom an agent dials when those it was told of are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from worker_fakes import eventually

from pyswarm.v1 import agent_pb2
from pyswarm.v1 import dispatcher_pb2 as pb
from pyswarm_common.errors import Unavailable
from pyswarm_worker import inquiries, known_managers
from pyswarm_worker.inquiries import Inquiries
from pyswarm_worker.known_managers import LAST_RESORT_S, MAX_FORMER, MAX_HEARSAY, KnownManagers, is_endpoint
from pyswarm_worker.session import longest_spread_s
from pyswarm_worker.store import AgentStore, connect


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


def known(clock: Clock, *joined_at: str, seeds: tuple[str, ...] = ()) -> KnownManagers:
    managers = KnownManagers(joined_at, seeds)
    managers._loop = clock  # type: ignore[assignment]
    managers._without_since = 0.0
    return managers


def told(managers: KnownManagers, *addresses: str) -> bool:
    """Whether something is to be kept."""
    return bool(managers.learn(pb.ManagerList(addresses=addresses)))


async def test_the_managers_of_today_come_first_and_alone_while_they_answer() -> None:
    clock = Clock()
    managers = known(clock, "a:1", seeds=("name:1",))
    managers.session_started()
    assert told(managers, "b:1", "c:1")
    assert not told(managers, "b:1", "c:1")
    clock.now = 10 * LAST_RESORT_S
    assert managers.candidates() == ("b:1", "c:1", "name:1")
    managers.session_broken()
    assert managers.candidates() == ("b:1", "c:1", "name:1")


async def test_after_a_while_without_a_session_former_managers_are_tried_one_per_round() -> None:
    clock = Clock()
    managers = known(clock, "a:1")
    managers.session_started()
    for addresses in (("a:1", "b:1"), ("b:1", "c:1"), ("d:1",)):
        told(managers, *addresses)
    managers.session_broken()
    clock.now += LAST_RESORT_S / 2
    managers.session_broken()  # another round that found nobody: it counts from the first
    clock.now += LAST_RESORT_S / 2
    rounds = [managers.candidates() for _ in range(6)]
    assert all(candidates[0] == "d:1" and len(candidates) == 2 for candidates in rounds)
    assert {candidates[1] for candidates in rounds} == {"a:1", "b:1", "c:1"}


async def test_no_more_than_the_newest_are_kept() -> None:
    managers = known(Clock())
    for number in range(3 * known_managers.MAX_FORMER):
        told(managers, f"m{number}:1")
    assert len(managers._former) == MAX_FORMER
    assert managers._former[0] == f"m{3 * MAX_FORMER - 2}:1"


async def test_the_next_daemon_knows_them_too(tmp_path: Path) -> None:
    store = AgentStore(connect(tmp_path / "agent.db"), ThreadPoolExecutor(1))
    try:
        managers = known(Clock(), "a:1")
        await store.write(managers.learn(pb.ManagerList(addresses=["b:1"], seeds=["name:1"])))
        clock = Clock()
        later = known(clock, "x:1")
        later.load(await store.load())
        clock.now = LAST_RESORT_S
        assert [later.candidates() for _ in range(2)] == [("b:1", "name:1", "x:1"), ("b:1", "name:1", "a:1")]
    finally:
        await store.close()


def list_of(*addresses: str, agents: tuple[str, ...] = ()) -> pb.ManagerList:
    return pb.ManagerList(addresses=addresses, agent_addresses=agents)


async def test_other_nodes_are_asked_in_turn_and_only_after_a_while_without_a_session() -> None:
    clock = Clock()
    managers = known(clock, "a:1")
    managers.session_started()
    managers.learn(list_of("a:1", agents=("a:7946", "b:7946")))
    managers.learn(list_of("b:1", agents=("b:7946", "c:7946")))
    assert managers.next_informant() is None
    managers.session_broken()
    assert managers.next_informant() is None
    clock.now += LAST_RESORT_S
    assert {managers.next_informant() for _ in range(3)} == {"a:7946", "b:7946", "c:7946"}


async def test_what_others_say_is_dialled_beside_former_managers_and_forgotten_with_the_next_session() -> None:
    clock = Clock()
    managers = known(clock, "10.0.0.1:1")
    managers.learn(list_of("10.0.0.2:1"))
    clock.now = LAST_RESORT_S
    assert managers.hear(["10.0.0.2:1", "10.0.0.3:1", "unix:/run/x", "10.0.0.3:1"]) == ("10.0.0.3:1",)
    assert managers.candidates() == ("10.0.0.2:1", "10.0.0.3:1", "10.0.0.1:1")
    assert managers.hear(f"10.1.0.{number}:1" for number in range(3 * MAX_HEARSAY)) != ()
    dialled = {address for _ in range(100) for address in managers.candidates()}
    assert len(dialled) == MAX_HEARSAY + 2
    managers.session_started()
    managers.session_broken()
    clock.now += LAST_RESORT_S
    assert managers.candidates() == ("10.0.0.2:1", "10.0.0.1:1")


async def test_the_next_daemon_knows_whom_to_ask(tmp_path: Path) -> None:
    store = AgentStore(connect(tmp_path / "agent.db"), ThreadPoolExecutor(1))
    try:
        await store.write(known(Clock()).learn(list_of("b:1", agents=("b:7946",))))
        clock = Clock()
        later = known(clock)
        later.load(await store.load())
        assert not later.learn(list_of("b:1", agents=("b:7946",)))
        clock.now = LAST_RESORT_S
        assert later.next_informant() == "b:7946"
    finally:
        await store.close()


@pytest.mark.parametrize("address", ["10.0.0.1:2377", "[fd00::1]:2377", "127.0.0.1:65535"])
def test_an_endpoint_is_an_address_and_a_port(address: str) -> None:
    assert is_endpoint(address)


@given(st.one_of(st.text(), st.from_regex(r"\A[\[\]0-9a-f.:%x]{0,24}\Z")))
@example("fd00::1:2377")
@example("[10.0.0.1]:2377")
@example("10.0.0.1:0")
@example("10.0.0.1:99999")
@example("10.0.0.1:٣")
@example("unix:/run/some.sock:80")
@example("[fe80::1%eth0]:80")
def test_whatever_another_node_says_only_endpoints_are_dialled(address: str) -> None:
    if is_endpoint(address):
        host, _, port = address.rpartition(":")
        assert str(ip_address(host.strip("[]"))).strip()
        assert 0 < int(port) < 65536
        assert set(address) <= set("0123456789abcdefABCDEF.:[]")


class Others:
    """Other nodes' agents: one is gone, one never answers, one knows."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @asynccontextmanager
    async def reach(self, address: str) -> AsyncIterator[inquiries.Informant]:
        self.asked.append(address)
        if address == "gone":
            raise Unavailable("connection refused")
        yield _Informant(address)


class _Informant:
    def __init__(self, address: str) -> None:
        self._address = address

    async def get_managers(self) -> agent_pb2.GetManagersResponse:
        if self._address == "silent":
            await asyncio.Event().wait()
        return agent_pb2.GetManagersResponse(addresses=["10.0.0.9:2377"])


async def test_somebody_who_knows_is_found_among_those_who_are_gone_or_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiries, "PAUSE_S", 0.0)
    monkeypatch.setattr(inquiries, "ANSWER_TIMEOUT_S", 0.01)
    clock, others = Clock(), Others()
    managers = known(clock, "10.0.0.1:1")
    managers.learn(list_of("10.0.0.1:1", agents=("gone", "silent", "knowing")))
    clock.now = LAST_RESORT_S
    asking = asyncio.create_task(Inquiries(managers, others.reach, lambda low, high: high).run())
    try:
        await eventually(lambda: "10.0.0.9:2377" in managers.candidates())
        assert others.asked[:3] == ["gone", "silent", "knowing"]
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize(("period_s", "spread_s"), [(0.05, 0.0), (1.0, 0.0), (2.0, 1.0), (10.0, 9.0), (60.0, 20.0)])
def test_agents_of_a_large_cluster_come_back_spread(period_s: float, spread_s: float) -> None:
    assert longest_spread_s(period_s) == spread_s
